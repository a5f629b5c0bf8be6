package reconciler

// leave takes a removed stack away, services that others depend on last.
func (s *step) leave() {
	if s.view.Record.Suspended != "" {
		s.hold()
		return
	}
	for _, sv := range s.services {
		if s.needed(sv) {
			continue
		}
		for _, st := range sv.all() {
			s.clear(st)
		}
	}
	if len(s.tasks) == 0 {
		s.decision.Gone = true
		s.happened("rollout", nil, "the stack was removed")
	}
}
