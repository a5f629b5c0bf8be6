package compose

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
)

var errorLine = regexp.MustCompile(`\bline (\d+)\b`)

// parseEnv reads KEY=VALUE lines as Compose does: quotes, comments, export,
// and variables, which are looked up in outer first and then in the file. A
// variable without value or default is an error, for a password that holds a
// $ would lose its end otherwise.
func parseEnv(name string, data []byte, outer lookup) (map[string]string, *located) {
	if found := checkEnv(name, data); found != nil {
		return nil, found
	}
	missing := map[string]bool{}
	vars, err := dotenv.ParseWithLookup(bytes.NewReader(data), func(key string) (string, bool) {
		value, ok := outer(key)
		if !ok {
			missing[key] = true
		}
		return value, ok
	})
	if err != nil {
		return nil, envError(name, data, err)
	}

	for _, key := range slices.Sorted(maps.Keys(missing)) {
		if _, ok := vars[key]; ok {
			continue
		}
		if at := bareReference(data, key); at > 0 {
			return nil, &located{place{name, at}, fmt.Sprintf("variable %s is not set; set it before this line, or put a value that holds $ in single quotes", key)}
		}
	}
	return vars, nil
}

func envError(name string, data []byte, err error) *located {
	at := place{file: name}
	if match := errorLine.FindStringSubmatch(err.Error()); match != nil {
		at.line, _ = strconv.Atoi(match[1])
	}
	if i := bytes.IndexByte(data, '$'); at.line == 0 && i >= 0 {
		at.line = line(data, i)
	}
	return &located{at, fmt.Sprintf("cannot be read as KEY=VALUE lines: %s", errorLine.ReplaceAllString(err.Error(), "line $1"))}
}

// bareReference is the first line, from 1, that refers to the variable and
// gives no default for it; 0 if there is none.
func bareReference(data []byte, key string) int {
	number := 0
	for text := range strings.Lines(string(data)) {
		number++
		if strings.HasPrefix(strings.TrimSpace(text), "#") {
			continue
		}
		for rest := text; ; {
			_, after, found := strings.Cut(rest, "$")
			if !found {
				break
			}
			rest = after
			inner := strings.TrimPrefix(after, "{")
			if variableName(inner) == key && (inner == after || strings.HasPrefix(inner[len(key):], "}")) {
				return number
			}
		}
	}
	return 0
}

// parseRawEnv reads KEY=VALUE lines without quotes and variables (format:
// raw).
func parseRawEnv(name string, data []byte) (map[string]string, *located) {
	if found := checkText(name, data); found != nil {
		return nil, found
	}
	vars := map[string]string{}
	number := 0
	for text := range strings.Lines(string(data)) {
		number++
		text = strings.TrimRight(text, "\r\n")
		if trimmed := strings.TrimSpace(text); trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, &located{place{name, number}, "is not KEY=VALUE"}
		}
		vars[key] = value
	}
	return vars, nil
}

// environment reads the files that variables of the whole stack come from:
// its folder's .env, then the project's own. Variables win over all of them.
func (l *loading) environment(project Project) (map[string]string, error) {
	env := maps.Clone(project.Variables)
	if env == nil {
		env = map[string]string{}
	}
	fromFiles := map[string]string{}
	for i, name := range append([]string{inside(project.Dir, ".env")}, project.EnvFiles...) {
		data, err := l.text(place{file: name}, name)
		if absent(err) && i == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		vars, found := parseEnv(name, data, either(env, fromFiles))
		if found != nil {
			return nil, found
		}
		maps.Copy(fromFiles, vars)
	}
	for key, value := range fromFiles {
		if _, ok := env[key]; !ok {
			env[key] = value
		}
	}
	env["COMPOSE_PROJECT_NAME"] = project.Name
	return env, nil
}

// either looks names up in several maps, the first that has it.
func either(layers ...map[string]string) lookup {
	return func(name string) (string, bool) {
		for _, layer := range layers {
			if value, ok := layer[name]; ok {
				return value, true
			}
		}
		return "", false
	}
}

// absent reports whether err says that a path of the tree does not exist.
func absent(err error) bool {
	var refused *refusal
	return errors.As(err, &refused) && refused.absent
}
