package compose

import "strings"

// Place tells where the project's files write a key of a service ("volumes",
// "cap_add"), or else the service itself; line 0 means nowhere.
func (l Loaded) Place(service, key string) (file string, line int) {
	whole := "services." + service
	for _, k := range l.keys {
		rest, below := strings.CutPrefix(k.Rule, whole+"."+key)
		if below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return k.File, k.Line
		}
		if file == "" && (k.Rule == whole || strings.HasPrefix(k.Rule, whole+".")) {
			file, line = k.File, k.Line
		}
	}
	return file, line
}
