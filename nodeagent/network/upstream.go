package network

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	resolvConfPath = "/etc/resolv.conf"
	resolvConfAge  = 5 * time.Second         // how long it is trusted unread
	upstreamWait   = 1500 * time.Millisecond // for one resolver: three of them fit a client's 5 s
	maxUpstreams   = 3
	maxCached      = 8192
	maxCacheTTL    = 5 * time.Minute
	maxNegativeTTL = 30 * time.Second
)

// upstream asks the resolvers of the node about names that are not of the
// cluster, from the host's namespace, and remembers what they say.
type upstream struct {
	host    string // path of the host's namespace; empty means this process's own
	flights singleflight.Group

	mu         sync.Mutex
	configured []string
	servers    []string // "address:port", the one that answered last in front
	domains    []string
	read       time.Time // when resolv.conf was looked at
	changed    time.Time // its modification time then
	cache      map[string]cached
}

type cached struct {
	reply *dns.Msg
	at    time.Time
	ttl   time.Duration
}

func newUpstream(host string) *upstream { return &upstream{host: host, cache: map[string]cached{}} }

// use sets the resolvers; none means those of /etc/resolv.conf.
func (u *upstream) use(servers []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.servers != nil && slices.Equal(servers, u.configured) {
		return
	}
	u.configured, u.cache, u.read, u.changed = slices.Clone(servers), map[string]cached{}, time.Time{}, time.Time{}
	u.servers, u.domains = []string{}, nil
	for _, s := range servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(s, "53")
		}
		u.servers = append(u.servers, s)
	}
}

// current returns the resolvers in the order to ask them.
func (u *upstream) current() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refresh()
	return slices.Clone(u.servers[:min(len(u.servers), maxUpstreams)])
}

// exists reports whether there is anyone to ask.
func (u *upstream) exists() bool { return len(u.current()) > 0 }

// search returns the search domains of the node.
func (u *upstream) search() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refresh()
	return u.domains
}

// refresh reads resolv.conf if it may have changed.
func (u *upstream) refresh() {
	if len(u.configured) > 0 || time.Since(u.read) < resolvConfAge {
		return
	}
	u.read = time.Now()
	info, err := os.Stat(resolvConfPath)
	if err != nil || info.ModTime().Equal(u.changed) {
		return
	}
	conf, err := dns.ClientConfigFromFile(resolvConfPath)
	if err != nil {
		return // it is being written: the next look sees it whole
	}
	u.changed, u.cache, u.servers, u.domains = info.ModTime(), map[string]cached{}, nil, conf.Search
	for _, s := range conf.Servers {
		u.servers = append(u.servers, net.JoinHostPort(s, conf.Port))
	}
}

// ask fills in the reply with what the resolvers say of the query.
func (u *upstream) ask(ctx context.Context, q, reply *dns.Msg) *dns.Msg {
	question := q.Question[0]
	key := fmt.Sprintf("%s %d", strings.ToLower(question.Name), question.Qtype)
	if edns := q.IsEdns0(); edns != nil && edns.Do() {
		key += " do"
	}

	said := u.remembered(key)
	if said == nil {
		flight := u.flights.DoChan(key, func() (any, error) {
			// The query outlives the container that asked first: others wait for it too.
			return u.exchange(context.WithoutCancel(ctx), key, q)
		})
		select {
		case r := <-flight:
			said, _ = r.Val.(*dns.Msg)
		case <-ctx.Done():
		}
	}
	if said == nil {
		reply.Rcode = dns.RcodeServerFailure
		return reply
	}

	said = said.Copy()
	reply.Rcode, reply.AuthenticatedData = said.Rcode, said.AuthenticatedData
	reply.Answer, reply.Ns = said.Answer, said.Ns
	reply.Extra = slices.DeleteFunc(said.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	return reply
}

// exchange asks one resolver after the other until one knows.
func (u *upstream) exchange(ctx context.Context, key string, q *dns.Msg) (*dns.Msg, error) {
	ask := new(dns.Msg).SetQuestion(q.Question[0].Name, q.Question[0].Qtype)
	edns := q.IsEdns0()
	ask.SetEdns0(maxUDPAnswer, edns != nil && edns.Do())

	var last *dns.Msg
	err := fmt.Errorf("no resolver is known")
	for _, server := range u.current() {
		var said *dns.Msg
		if said, err = u.one(ctx, server, ask); err != nil {
			continue
		}
		last = said
		if said.Rcode == dns.RcodeSuccess || said.Rcode == dns.RcodeNameError {
			u.remember(key, server, said)
			return said, nil
		}
	}
	if last != nil {
		return last, nil
	}
	return nil, err
}

// one asks one resolver, again over TCP if its answer was cut short.
func (u *upstream) one(ctx context.Context, server string, ask *dns.Msg) (*dns.Msg, error) {
	for _, network := range []string{"udp", "tcp"} {
		raw, err := u.dial(ctx, network, server)
		if err != nil {
			return nil, err
		}
		ask.Id = dns.Id()
		client := &dns.Client{Net: network, Timeout: upstreamWait, UDPSize: maxUDPAnswer}
		said, _, err := client.ExchangeWithConn(ask, &dns.Conn{Conn: raw, UDPSize: maxUDPAnswer})
		_ = raw.Close()
		if err != nil {
			return nil, err
		}
		if len(said.Question) != 1 || !strings.EqualFold(said.Question[0].Name, ask.Question[0].Name) || said.Question[0].Qtype != ask.Question[0].Qtype {
			return nil, fmt.Errorf("resolver %s answered another question", server)
		}
		if !said.Truncated {
			return said, nil
		}
	}
	return nil, fmt.Errorf("resolver %s cut its answer short", server)
}

func (u *upstream) dial(ctx context.Context, network, server string) (c net.Conn, err error) {
	dialer := net.Dialer{Timeout: upstreamWait}
	if u.host == "" {
		return dialer.DialContext(ctx, network, server)
	}
	err = inside(u.host, func() error {
		c, err = dialer.DialContext(ctx, network, server)
		return err
	})
	return c, err
}

// remember keeps an answer for as long as it says, and asks the resolver that
// gave it first from now on.
func (u *upstream) remember(key, server string, said *dns.Msg) {
	ttl := lifetime(said)
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := slices.Index(u.servers, server); i > 0 {
		u.servers = slices.Insert(slices.Delete(u.servers, i, i+1), 0, server)
	}
	if ttl <= 0 {
		return
	}
	for old := range u.cache { // any will do: the order of a map is chance
		if len(u.cache) < maxCached {
			break
		}
		delete(u.cache, old)
	}
	u.cache[key] = cached{reply: said, at: time.Now(), ttl: ttl}
}

// remembered returns a copy of an answer with the time that is left of it.
func (u *upstream) remembered(key string) *dns.Msg {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.cache[key]
	age := time.Since(c.at)
	if !ok || age >= c.ttl {
		delete(u.cache, key)
		return nil
	}
	said := c.reply.Copy()
	for _, section := range [][]dns.RR{said.Answer, said.Ns} {
		for _, rr := range section {
			rr.Header().Ttl -= min(rr.Header().Ttl, uint32(age/time.Second))
		}
	}
	return said
}

// lifetime is how long an answer may be kept; a denial as RFC 2308 section 5
// says.
func lifetime(said *dns.Msg) time.Duration {
	least := maxCacheTTL
	for _, rr := range said.Answer {
		least = min(least, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if len(said.Answer) > 0 {
		return least
	}
	for _, rr := range said.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(maxNegativeTTL, time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second)
		}
	}
	return 0
}
