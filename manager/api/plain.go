package api

import (
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// plain turns a noun into what JSON shows of it: fields in camel case, those
// that are zero left out, spans as "5s", modes in octal.
func plain(value any) any { return plainValue(reflect.ValueOf(value)) }

func plainValue(v reflect.Value) any {
	switch value := interfaceOf(v).(type) {
	case time.Time:
		return value.UTC().Format(time.RFC3339Nano)
	case time.Duration:
		return value.String()
	case fs.FileMode:
		return fmt.Sprintf("%#o", uint32(value))
	case interface{ MarshalText() ([]byte, error) }:
		text, _ := value.MarshalText()
		return string(text)
	}

	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return plainValue(v.Elem())
	case reflect.String:
		return v.String()
	case reflect.Struct:
		return plainStruct(v)
	case reflect.Slice, reflect.Array:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plainValue(v.Index(i))
		}
		return list
	case reflect.Map:
		fields := map[string]any{}
		for _, key := range v.MapKeys() {
			fields[key.String()] = plainValue(v.MapIndex(key))
		}
		return fields
	}
	return v.Interface()
}

func interfaceOf(v reflect.Value) any {
	if !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil
	}
	return v.Interface()
}

func plainStruct(v reflect.Value) map[string]any {
	fields := map[string]any{}
	for i := range v.NumField() {
		if field := v.Type().Field(i); field.IsExported() && !v.Field(i).IsZero() {
			fields[camel(field.Name)] = plainValue(v.Field(i))
		}
	}
	return fields
}

// camel: "StopGrace" is "stopGrace", "ID" is "id", "VIPs" is "vips".
func camel(name string) string {
	if strings.ToUpper(strings.TrimSuffix(name, "s")) == strings.TrimSuffix(name, "s") {
		return strings.ToLower(name)
	}
	runes := []rune(name)
	for i, r := range runes {
		next := i+1 < len(runes) && unicode.IsLower(runes[i+1])
		if !unicode.IsUpper(r) || (i > 0 && next) {
			break
		}
		runes[i] = unicode.ToLower(r)
	}
	return string(runes)
}
