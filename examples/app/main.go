// Command app is the web server of the examples: it says which version it is
// and who called, answers a health check, and fails in whichever way its
// environment asks for. It keeps nothing.
//
//	APP_VERSION     what it answers; "v1"
//	APP_EXIT_AFTER  end by itself after this long; "2s"
//	APP_EXIT_CODE   with this code; 1 unless set
//	APP_UNHEALTHY   answer the health check with 503 after this long; "0s" means at once
//	APP_SLOW_START  listen only after this long
//	APP_NEEDS       end with code 9 at once unless these can be read: files or URLs, with commas
//	APP_IGNORE_TERM stay when asked to stop, so that only SIGKILL ends it
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const address = ":8080"

func main() {
	log.SetFlags(log.Ldate | log.Ltime | log.Lmicroseconds | log.LUTC)
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "health":
		os.Exit(probe())
	case len(os.Args) > 1 && tools[os.Args[1]] != nil:
		err = tools[os.Args[1]](os.Args[2:])
	default:
		err = serve()
	}
	if err != nil {
		log.Fatal(err)
	}
}

// probe is the image's health check: `app health`.
func probe() int {
	client := http.Client{Timeout: 2 * time.Second}
	answer, err := client.Get("http://127.0.0.1" + address + "/health")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
	if answer.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

func serve() error {
	began := time.Now()
	version := os.Getenv("APP_VERSION")
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	log.Printf("started %s on %s", version, hostname)
	go exitLater()

	if err := needs(os.Getenv("APP_NEEDS")); err != nil {
		log.Print(err)
		os.Exit(9)
	}
	if !wait("APP_SLOW_START") {
		return nil
	}
	server := &http.Server{Addr: address, Handler: pages(version, hostname, began), ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan os.Signal, 1)
	go func() { stopped <- stopOnTerm(server) }()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Printf("stopped %s on %s by %s", version, hostname, <-stopped)
	return nil
}

func pages(version, hostname string, began time.Time) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "hello from %s on %s to %s\n", version, hostname, client)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if after, set := duration("APP_UNHEALTHY"); set && time.Since(began) >= after {
			http.Error(w, "unhealthy by request", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /file/", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, r.URL.Path[len("/file"):])
	})
	mux.HandleFunc("GET /exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		log.Printf("exiting %d by request", code)
		os.Exit(code)
	})
	mux.HandleFunc("GET /log", func(_ http.ResponseWriter, r *http.Request) { log.Print(r.URL.Query().Get("text")) })
	mux.HandleFunc("GET /hold", func(w http.ResponseWriter, r *http.Request) {
		mebibytes, _ := strconv.Atoi(r.URL.Query().Get("mib"))
		fmt.Fprintln(w, "holds", len(hold(mebibytes)), "bytes")
	})
	mux.HandleFunc("GET /get", func(w http.ResponseWriter, r *http.Request) {
		relay(w, r.URL.Query().Get("url"))
	})
	return mux
}

// relay asks another service of the stack, so that a test can look out from
// inside of a container.
func relay(w http.ResponseWriter, url string) {
	client := http.Client{Timeout: 3 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	w.WriteHeader(answer.StatusCode)
	if _, err := io.Copy(w, io.LimitReader(answer.Body, 1<<20)); err != nil {
		log.Printf("relay %s: %v", url, err)
	}
}

func exitLater() {
	if !wait("APP_EXIT_AFTER") {
		return
	}
	if _, set := duration("APP_EXIT_AFTER"); !set {
		return
	}
	code, err := strconv.Atoi(os.Getenv("APP_EXIT_CODE"))
	if err != nil {
		code = 1
	}
	log.Printf("exiting %d by request", code)
	os.Exit(code)
}

func stopOnTerm(server *http.Server) os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	received := <-signals
	for ; os.Getenv("APP_IGNORE_TERM") != ""; received = <-signals {
		log.Printf("ignored %s by request", received)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Printf("shut down: %v", err)
	}
	return received
}

// wait sleeps for as long as the variable says, and reports whether its value
// could be read.
func wait(variable string) bool {
	d, set := duration(variable)
	if !set && os.Getenv(variable) != "" {
		log.Printf("%s=%q is not a duration", variable, os.Getenv(variable))
		return false
	}
	time.Sleep(d)
	return true
}

func duration(variable string) (time.Duration, bool) {
	d, err := time.ParseDuration(os.Getenv(variable))
	return d, err == nil
}
