package store

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/gitswarm/gitswarm/internal/codec"
)

// entryFormat is the first byte of every log entry's content.
const entryFormat = 1

// maxEntry is the largest command in bytes. One decision over 10,000 tasks has
// about 3 MB.
const maxEntry = 16 << 20

// errNewer stops a manager that meets what a newer build wrote.
var errNewer = errors.New("it was written by a newer build: start that build, or restore a backup of this one")

// encodeEntry writes a command as it stands in the log.
func encodeEntry(c Command) ([]byte, error) {
	name, err := c.name()
	if err != nil {
		return nil, err
	}
	data, err := codec.Encode(c)
	if err != nil {
		return nil, err
	}
	if len(data) >= maxEntry {
		return nil, fmt.Errorf("command %s has %d bytes, more than %d", name, len(data), maxEntry)
	}
	entry := append([]byte{entryFormat}, data...)
	if _, err := decodeEntry(entry); err != nil {
		return nil, fmt.Errorf("read command %s back: %w", name, err) // in the log it would stop every manager
	}
	return entry, nil
}

// decodeEntry reads what encodeEntry wrote. It refuses what this build does
// not know: a manager that passed over a field would differ from the others.
func decodeEntry(data []byte) (Command, error) {
	if len(data) == 0 {
		return Command{}, errors.New("the entry is empty")
	}
	if data[0] != entryFormat {
		return Command{}, fmt.Errorf("format %d: %w", data[0], errNewer)
	}
	var c Command
	if err := codec.DecodeStrict(data[1:], &c); err != nil {
		return Command{}, fmt.Errorf("%w (%w)", errNewer, err)
	}
	if _, err := c.name(); err != nil {
		return Command{}, err
	}
	return c, nil
}

// name is that of the field that is set: "Decide". Exactly one must be.
func (c Command) name() (string, error) {
	name := ""
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		switch field := v.Field(i); field.Kind() {
		case reflect.Pointer, reflect.Slice:
			if field.IsZero() || field.Kind() == reflect.Slice && field.Len() == 0 {
				continue
			}
			if name != "" {
				return "", fmt.Errorf("the command says both %s and %s", name, v.Type().Field(i).Name)
			}
			name = v.Type().Field(i).Name
		}
	}
	if name == "" {
		return "", errors.New("the command says nothing")
	}
	return name, nil
}
