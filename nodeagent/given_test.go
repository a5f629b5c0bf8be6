package nodeagent

import (
	"fmt"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestAContainerIsToldWhatItWasGiven(t *testing.T) {
	got := given([]swarm.GenericResource{{Kind: "gpu", Count: 2, Names: []string{"GPU-1", "GPU-2"}}, {Kind: "ssd", Count: 3}})
	if want := "[DOCKER_RESOURCE_GPU=GPU-1,GPU-2 DOCKER_RESOURCE_SSD=3]"; fmt.Sprint(got) != want {
		t.Errorf("the container gets %v, want %s", got, want)
	}
}
