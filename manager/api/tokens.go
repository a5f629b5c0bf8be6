package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// A user's token is written GSUSR-1-<id, base 32>-<secret, base 32>.
const (
	userTokenPrefix = "GSUSR-1-"
	idBytes         = 5
	secretBytes     = 32
	idLength        = 8
	secretLength    = 52
	maxTokens       = 10_000
	longestToken    = 2 * 365 * 24 * time.Hour
)

// tokenLetters writes the parts of tokens.
func tokenLetters() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// errToken is of a text that is no user's token.
var errToken = errors.New("it is no user's token: copy the whole of it, as `gitswarm token user` printed it")

// parseUserToken splits a token. Its error quotes nothing.
func parseUserToken(text string) (id string, hash [sha256.Size]byte, err error) {
	rest, ok := strings.CutPrefix(text, userTokenPrefix)
	if !ok || len(rest) != idLength+1+secretLength || rest[idLength] != '-' {
		return "", hash, errToken
	}
	id = rest[:idLength]
	if _, err := tokenLetters().DecodeString(id); err != nil {
		return "", hash, errToken
	}
	secret, err := tokenLetters().DecodeString(rest[idLength+1:])
	if err != nil || len(secret) != secretBytes {
		return "", hash, errToken
	}
	return id, sha256.Sum256(secret), nil
}

// newUserToken makes a token's text, its id and what is kept of its secret.
func newUserToken() (text, id string, hash []byte) {
	var public [idBytes]byte
	var secret [secretBytes]byte
	_, _ = rand.Read(public[:]) // never fails: crypto/rand ends the program instead
	_, _ = rand.Read(secret[:])
	id = tokenLetters().EncodeToString(public[:])
	sum := sha256.Sum256(secret[:])
	return userTokenPrefix + id + "-" + tokenLetters().EncodeToString(secret[:]), id, sum[:]
}

// Why a token is refused; the text is a constant, so that it can be counted.
var (
	errNoToken      = errors.New("no token was sent")
	errUnknownToken = errors.New("the token is unknown: it was removed, or is another cluster's")
	errExpired      = errors.New("the token has expired")
)

// callerFor finds whose token it is. It takes equally long for every secret of
// an id, and for an id that nobody has.
func callerFor(tokens []swarm.UserToken, presented string, now time.Time) (caller, error) {
	if presented == "" {
		return caller{}, errNoToken
	}
	id, hash, err := parseUserToken(presented)
	if err != nil {
		return caller{}, err
	}
	token := tokenOf(tokens, id)
	kept := make([]byte, sha256.Size)
	copy(kept, token.Hash)
	same := subtle.ConstantTimeCompare(kept, hash[:]) == 1
	switch {
	case !same || len(token.Hash) != sha256.Size:
		return caller{}, errUnknownToken
	case !now.Before(token.Expires):
		return caller{}, errExpired
	}
	return callerOfToken(token), nil
}

func tokenOf(tokens []swarm.UserToken, id string) swarm.UserToken {
	for _, token := range tokens {
		if token.ID == id {
			return token
		}
	}
	return swarm.UserToken{}
}

func callerOfToken(token swarm.UserToken) caller {
	return caller{Name: token.Name, Role: token.Role, Source: token.Source, Token: token.ID}
}

// again looks a token up that another manager has judged: it may have been
// removed or have expired since.
func (c caller) again(tokens []swarm.UserToken, now time.Time) (caller, error) {
	if c.Token == "" {
		return c, nil
	}
	token := tokenOf(tokens, c.Token)
	switch {
	case token.ID == "":
		return caller{}, errUnknownToken
	case !now.Before(token.Expires):
		return caller{}, errExpired
	}
	return callerOfToken(token), nil
}

// Token is a user's right to use this API from afar, as people see it.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Source  string    `json:"source,omitempty" doc:"the one that it may act on and see"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Expired bool      `json:"expired,omitempty"`
}

// MadeToken is a token that was made.
type MadeToken struct {
	Token
	Secret  string `json:"secret" doc:"the whole token: shown once"`
	Pin     string `json:"pin,omitempty" doc:"of the certificate authority"`
	Command string `json:"command" doc:"what to type where it is used"`
}

type tokenBody struct {
	Name    string `json:"name" minLength:"1" maxLength:"64" pattern:"^[^\\x00-\\x1f\\x7f]+$" doc:"whose it is: it stands in events"`
	Role    string `json:"role" enum:"viewer,ci,operator,admin"`
	Source  string `json:"source,omitempty" maxLength:"255" doc:"role viewer or ci: see and act on this source alone"`
	Seconds int    `json:"seconds" minimum:"1" doc:"how long it is good for; two years at most"`
	Host    string `json:"host,omitempty" maxLength:"255" doc:"where it will be used, for the command"`
}

func (s *Server) tokenRoutes(api huma.API) {
	register(s, api, reading("authority", "/v1/authority", "The roots that this cluster's certificates are signed by; without a token"), s.authority)
	register(s, api, reading("list-tokens", "/v1/tokens", "Tokens of users, without their secrets"), s.listTokens)
	register(s, api, acting("add-token", "/v1/tokens", "Make a token for a user; the answer alone has it"), s.addToken)
	register(s, api, huma.Operation{
		OperationID: "remove-token", Method: http.MethodDelete, Path: "/v1/tokens/{token}",
		Summary: "Make a token worth nothing", DefaultStatus: http.StatusOK,
	}, s.removeToken)
}

func (s *Server) tokens() []swarm.UserToken {
	if s.View == nil {
		return nil
	}
	return s.View().Tokens()
}

func tokenView(token swarm.UserToken, now time.Time) Token {
	return Token{
		ID: token.ID, Name: token.Name, Role: string(token.Role), Source: string(token.Source),
		Created: token.Created, Expires: token.Expires, Expired: !now.Before(token.Expires),
	}
}

func (s *Server) listTokens(context.Context, *none) (*body[[]Token], error) {
	views := []Token{}
	for _, token := range s.tokens() {
		views = append(views, tokenView(token, time.Now()))
	}
	slices.SortFunc(views, func(a, b Token) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return answer(views)
}

func (s *Server) addToken(ctx context.Context, in *struct{ Body tokenBody }) (*body[MadeToken], error) {
	r := in.Body
	role := swarm.UserRole(r.Role)
	life := time.Duration(r.Seconds) * time.Second
	switch {
	case r.Seconds > int(longestToken/time.Second):
		return nil, Invalid("a token is good for two years at most", "give --expires 90d, and make a new one then")
	case r.Source != "" && role != swarm.UserCI && role != swarm.UserViewer:
		return nil, Invalid("a token of one source has role viewer or ci", "leave --source out, or give --role ci")
	case len(s.tokens()) >= maxTokens:
		return nil, Conflict(fmt.Sprintf("there are %d tokens", maxTokens), "gitswarm token rm removes one; gitswarm token ls shows which have expired")
	}
	if r.Source != "" {
		if _, err := s.getSource(ctx, &oneSource{Source: r.Source}); err != nil {
			return nil, err
		}
	}

	text, id, hash := newUserToken()
	now := time.Now().UTC().Truncate(time.Second)
	token := swarm.UserToken{
		ID: id, Name: r.Name, Role: role, Source: swarm.SourceID(r.Source), Hash: hash, Created: now, Expires: now.Add(life),
	}
	if err := s.Users.PutToken(ctx, token, by(ctx)); err != nil {
		return nil, err
	}
	made := MadeToken{Token: tokenView(token, now), Secret: text}
	if trusted := pins(s.cluster().Authority.Trust); len(trusted) > 0 {
		made.Pin = trusted[len(trusted)-1]
	}
	made.Command = contextCommand(r.Host, made.Pin)
	return answer(made)
}

// contextCommand is what to type where a token is used.
func contextCommand(host, pin string) string {
	command := fmt.Sprintf("gitswarm context add NAME --host https://%s --token-file FILE", host)
	if pin != "" {
		command += " --ca-pin " + pin
	}
	return command
}

func (s *Server) removeToken(ctx context.Context, in *struct {
	Token string `path:"token" maxLength:"64" doc:"its id, or a name that one token alone has"`
}) (*body[Done], error) {
	var found []swarm.UserToken
	for _, token := range s.tokens() {
		if token.ID == in.Token {
			found = []swarm.UserToken{token}
			break
		}
		if token.Name == in.Token {
			found = append(found, token)
		}
	}
	switch len(found) {
	case 0:
		return nil, NotFound(fmt.Sprintf("no token %q", in.Token), "gitswarm token ls lists them")
	case 1:
	default:
		return nil, Conflict(fmt.Sprintf("%d tokens are %s's", len(found), in.Token), "give the id of one: gitswarm token ls")
	}
	if err := s.Users.DropToken(ctx, found[0].ID, by(ctx)); err != nil {
		return nil, err
	}
	return answer(Done{Text: fmt.Sprintf("token %s of %s is worth nothing from now on", found[0].ID, found[0].Name)})
}
