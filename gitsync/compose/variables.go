package compose

import (
	"errors"
	"fmt"
	"strings"
)

// lookup returns a variable's value, and whether it is set.
type lookup func(name string) (string, bool)

// unsetError names a variable that has neither a value nor a default.
type unsetError struct {
	name   string
	reason string // of ${NAME:?reason}
}

func (e *unsetError) Error() string {
	if e.reason != "" {
		return fmt.Sprintf("variable %s is not set: %s", e.name, e.reason)
	}
	return fmt.Sprintf("variable %s is not set", e.name)
}

// substitute writes out $NAME, ${NAME}, ${NAME:-default}, ${NAME-default},
// ${NAME:?reason}, ${NAME?reason}, ${NAME:+other}, ${NAME+other} and $$. It
// takes time in proportion to what it reads and writes, and stops at
// maxSubstitution and maxExpanded. A variable without value or default is an
// *unsetError.
func substitute(text string, value lookup) (string, error) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	s := substitution{text: text, value: value}
	if err := s.until(false, true, 0); err != nil {
		return "", err
	}
	return s.out.String(), nil
}

type substitution struct {
	text  string
	at    int
	value lookup
	out   strings.Builder
}

// until copies text up to its end or, inside of braces, up to the one that
// closes. Nothing is written, and no variable is missed, unless wanted.
func (s *substitution) until(braced, wanted bool, depth int) error {
	if depth > maxSubstitution {
		return fmt.Errorf("${} is nested deeper than %d", maxSubstitution)
	}
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == '}' && braced:
			s.at++
			return nil
		case c == '$':
			if err := s.dollar(wanted, depth); err != nil {
				return err
			}
		default:
			if err := s.plain(wanted); err != nil {
				return err
			}
		}
	}
	if braced {
		return errors.New("${ is not closed by }; write $$ for a $ that is not a variable")
	}
	return nil
}

// plain copies what is neither a variable nor a brace that may close.
func (s *substitution) plain(wanted bool) error {
	end := strings.IndexAny(s.text[s.at+1:], "$}")
	if end < 0 {
		end = len(s.text) - s.at - 1
	}
	from := s.at
	s.at += 1 + end
	return s.write(s.text[from:s.at], wanted)
}

func (s *substitution) write(text string, wanted bool) error {
	if !wanted {
		return nil
	}
	if s.out.Len()+len(text) > maxExpanded {
		return fmt.Errorf("the value grows beyond %s", size(maxExpanded))
	}
	s.out.WriteString(text)
	return nil
}

// dollar handles what begins with the $ at s.at.
func (s *substitution) dollar(wanted bool, depth int) error {
	rest := s.text[s.at+1:]
	switch {
	case strings.HasPrefix(rest, "$"):
		s.at += 2
		return s.write("$", wanted)
	case strings.HasPrefix(rest, "{"):
		s.at += 2
		return s.braced(wanted, depth)
	}
	name := variableName(rest)
	if name == "" {
		return errors.New("a $ is not followed by a variable's name; write $$ for a $ that is not a variable")
	}
	s.at += 1 + len(name)
	return s.expand(name, wanted)
}

func (s *substitution) expand(name string, wanted bool) error {
	value, ok := s.value(name)
	if !ok && wanted {
		return &unsetError{name: name}
	}
	return s.write(value, wanted)
}

// braced handles what follows "${".
func (s *substitution) braced(wanted bool, depth int) error {
	name := variableName(s.text[s.at:])
	if name == "" {
		return errors.New("${ is not followed by a variable's name; write $$ for a $ that is not a variable")
	}
	s.at += len(name)

	operator := s.operator()
	if operator == "" {
		if s.at >= len(s.text) || s.text[s.at] != '}' {
			return fmt.Errorf("${%s is not closed by }; write $$ for a $ that is not a variable", name)
		}
		s.at++
		return s.expand(name, wanted)
	}

	value, ok := s.value(name)
	if strings.HasPrefix(operator, ":") {
		ok = ok && value != ""
	}
	switch operator[len(operator)-1] {
	case '-':
		if ok {
			if err := s.write(value, wanted); err != nil {
				return err
			}
		}
		return s.until(true, wanted && !ok, depth+1)
	case '+':
		return s.until(true, wanted && ok, depth+1)
	default:
		return s.required(name, value, ok, wanted, depth)
	}
}

// required handles ${NAME?reason}: what it would write is the reason.
func (s *substitution) required(name, value string, ok, wanted bool, depth int) error {
	before := s.out.String()
	if ok || !wanted {
		if err := s.write(value, wanted); err != nil {
			return err
		}
		return s.until(true, false, depth+1)
	}
	if err := s.until(true, true, depth+1); err != nil {
		return err
	}
	return &unsetError{name: name, reason: strings.TrimPrefix(s.out.String(), before)}
}

func (s *substitution) operator() string {
	for _, operator := range []string{":-", ":?", ":+", "-", "?", "+"} {
		if strings.HasPrefix(s.text[s.at:], operator) {
			s.at += len(operator)
			return operator
		}
	}
	return ""
}

// variableName is the name that text begins with: [A-Za-z_][A-Za-z0-9_]*.
func variableName(text string) string {
	for i := 0; i < len(text); i++ {
		c := text[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return text[:i]
		}
	}
	return text
}
