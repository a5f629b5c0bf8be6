package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// Failure is an error of the API as RFC 9457 writes it, with one member more:
// what to do about it.
type Failure struct {
	Title  string              `json:"title"`
	Status int                 `json:"status"`
	Detail string              `json:"detail"`
	Remedy string              `json:"remedy,omitempty" doc:"what to do about it"`
	Code   string              `json:"code,omitempty" doc:"for programs, where the status is not enough"`
	Errors []*huma.ErrorDetail `json:"errors,omitempty"`
}

// Fail returns an error that the API answers with this HTTP status.
func Fail(status int, detail, remedy string) error {
	return &Failure{Title: http.StatusText(status), Status: status, Detail: detail, Remedy: remedy}
}

// NotFound says that what was asked for is not there.
func NotFound(detail, remedy string) error { return Fail(http.StatusNotFound, detail, remedy) }

// Invalid says that the request can never work.
func Invalid(detail, remedy string) error {
	return Fail(http.StatusUnprocessableEntity, detail, remedy)
}

// Conflict says that the request cannot work now.
func Conflict(detail, remedy string) error { return Fail(http.StatusConflict, detail, remedy) }

// Unavailable says that the request may be repeated later.
func Unavailable(detail, remedy string) error {
	return Fail(http.StatusServiceUnavailable, detail, remedy)
}

// Error is the detail with its remedy.
func (f *Failure) Error() string {
	text := f.Detail
	for _, detail := range f.Errors {
		text += ": " + detail.Error()
	}
	if f.Remedy != "" {
		text += " (" + f.Remedy + ")"
	}
	return text
}

// GetStatus is the HTTP status.
func (f *Failure) GetStatus() int { return f.Status }

// ContentType is that of RFC 9457.
func (f *Failure) ContentType(string) string { return "application/problem+json" }

// failure gives any error the form that people get. Status is that of an error
// which does not say it itself.
func failure(err error, status int) *Failure {
	var failed *Failure
	if errors.As(err, &failed) {
		return failed
	}

	remedy := ""
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		status, remedy = http.StatusGatewayTimeout, "try again; `gitswarm status` shows what is slow"
	case status == http.StatusInternalServerError:
		remedy = "the daemon's log says more: journalctl -u gitswarm"
	}
	return &Failure{Title: http.StatusText(status), Status: status, Detail: err.Error(), Remedy: remedy}
}
