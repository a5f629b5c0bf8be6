package runtime

import (
	"bufio"
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// accounts are the user and group files of an image, each as it is there or
// empty.
type accounts struct {
	passwd []byte
	group  []byte
}

// user finds who "uid", "name", "uid:gid" or "name:group" is in the image; an
// empty name is root. Supplementary groups are the first group and, unless one
// is named, those of /etc/group, as Docker has it.
func (a accounts) user(name string) (specs.User, error) {
	user, err := a.find(name)
	user.AdditionalGids = slices.Insert(user.AdditionalGids, 0, user.GID)
	return user, err
}

func (a accounts) find(name string) (specs.User, error) {
	account, group, hasGroup := strings.Cut(name, ":")
	user, login, err := a.account(account)
	if err != nil {
		return specs.User{}, err
	}
	if !hasGroup || group == "" {
		user.AdditionalGids = a.groupsOf(login, user.GID)
		return user, nil
	}

	if gid, ok, err := number(group); err != nil {
		return specs.User{}, err
	} else if ok {
		user.GID = gid
		return user, nil
	}
	for fields := range lines(a.group, 3) {
		if gid, ok, err := number(fields[2]); err == nil && ok && fields[0] == group {
			user.GID = gid
			return user, nil
		}
	}
	return specs.User{}, contentError("group %q is not in the image's /etc/group", group)
}

// account finds a user by name or number. A number needs no entry.
func (a accounts) account(name string) (user specs.User, login string, err error) {
	if name == "" {
		name = "0"
	}
	uid, numeric, err := number(name)
	if err != nil {
		return specs.User{}, "", err
	}

	for fields := range lines(a.passwd, 4) {
		u, ok1, err1 := number(fields[2])
		g, ok2, err2 := number(fields[3])
		if err1 != nil || err2 != nil || !ok1 || !ok2 {
			continue
		}
		if numeric && u == uid || !numeric && fields[0] == name {
			return specs.User{UID: u, GID: g}, fields[0], nil
		}
	}
	if !numeric {
		return specs.User{}, "", contentError("user %q is not in the image's /etc/passwd", name)
	}
	return specs.User{UID: uid}, "", nil
}

// groupsOf lists the groups that name login as a member, sorted, without
// primary.
func (a accounts) groupsOf(login string, primary uint32) []uint32 {
	if login == "" {
		return nil
	}
	var gids []uint32
	for fields := range lines(a.group, 4) {
		gid, ok, err := number(fields[2])
		if err != nil || !ok || gid == primary {
			continue
		}
		if slices.Contains(strings.Split(fields[3], ","), login) {
			gids = append(gids, gid)
		}
	}
	slices.Sort(gids)
	return slices.Compact(gids)
}

// number reads an id. ok is false where s is a name. A number above 2³¹-1 is
// refused: the kernel would wrap it, to root in the worst case
// (CVE-2024-40635).
func number(s string) (id uint32, ok bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt32 {
		return 0, false, contentError("id %s is above %d", s, math.MaxInt32)
	}
	return uint32(n), true, nil
}

// lines gives the fields of each line that has at least count of them.
func lines(file []byte, count int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		scanner := bufio.NewScanner(bytes.NewReader(file))
		for scanner.Scan() {
			fields := strings.Split(scanner.Text(), ":")
			if len(fields) >= count && !yield(fields) {
				return
			}
		}
	}
}
