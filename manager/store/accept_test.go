package store

import (
	"errors"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func acceptAll(stacks ...AcceptStack) Command {
	return Command{AcceptStacks: &AcceptStacks{Stacks: stacks}}
}

func revision(n string) swarm.Rendered {
	return swarm.Rendered{Revision: swarm.Revision("main@sha1:" + n), Content: swarm.Digest("sha256:" + n)}
}

func TestACommitThatWasJudgedOnAnOlderRecordIsVoid(t *testing.T) {
	l := newLog(t)
	l.do(acceptAll(AcceptStack{Name: "shop", Head: revision("1")}))
	judged := l.stack("shop").Version
	why := "by ana"
	l.do(operate(Operate{Stack: "shop", Suspend: &why}))

	if err := l.try(acceptAll(AcceptStack{Name: "shop", Head: revision("2"), Version: judged})); !errors.Is(err, ErrStale) {
		t.Errorf("error is %v, want ErrStale", err)
	}
	if got := l.stack("shop").Accepted; got != revision("1") {
		t.Errorf("accepted is %+v, want what it was", got)
	}
	l.do(acceptAll(AcceptStack{Name: "shop", Head: revision("2"), Version: l.stack("shop").Version}))
	if got := l.stack("shop").Accepted; got != revision("2") {
		t.Errorf("accepted is %+v, want revision 2", got)
	}
}

func TestARedeploymentDoesNotUndoACommitThatCameMeanwhile(t *testing.T) {
	l := newLog(t)
	l.do(acceptAll(AcceptStack{Name: "shop", Head: revision("2")}))
	anew := revision("1")
	anew.Content = "sha256:anew"
	if err := l.try(operate(Operate{Stack: "shop", Accept: &anew})); err == nil {
		t.Error("a redeployment of revision 1 was accepted over revision 2")
	}
	if got := l.stack("shop").Accepted; got != revision("2") {
		t.Errorf("accepted is %+v, want revision 2", got)
	}
}

func TestARenamedStackThatHadToWaitStillTakesItsFormerRecord(t *testing.T) {
	l := newLog(t)
	waits := &swarm.Problem{Kind: swarm.ProblemWaiting, Text: "image is missing"}
	l.do(acceptAll(AcceptStack{Name: "shop", Head: revision("1")}),
		acceptAll(AcceptStack{Name: "store", Was: "shop", Head: swarm.Rendered{Revision: "main@sha1:2"}, Problem: waits}))
	scaled := map[string]int{"web": 3}
	l.do(operate(Operate{Stack: "shop", Scale: scaled}), acceptAll(AcceptStack{Name: "store", Was: "shop", Head: revision("2")}))

	if _, there := l.view().Stack("shop"); there {
		t.Error("shop is there still")
	}
	if store := l.stack("store"); store.Accepted != revision("2") || store.Scale["web"] != 3 || store.Problem != nil {
		t.Errorf("store is %+v, want shop's record with revision 2", store)
	}
}
