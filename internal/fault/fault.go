// Package fault is the one table of Shoal's codes: the stable words by which a
// person, a script and a monitoring rule tell one failure from another, and the
// exit status each has.
//
// A [Code] is itself an error, so errors.Is(err, fault.Rollback) asks whether err
// carries that code however deep it is wrapped. An [Error] adds what a person
// needs: what is wrong, what was expected and found, what still works, and what to
// do next. Codes are never renamed and never reused.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Code is a stable word for one kind of outcome. Each is described in [Table].
type Code string

// Error makes a Code usable as a target of errors.Is.
func (c Code) Error() string { return string(c) }

// The codes. Their meaning and exit status are in [Table].
const (
	OK                Code = "ok"
	Same              Code = "same"
	IO                Code = "io"
	NotFound          Code = "not_found"
	Malformed         Code = "malformed"
	TooLarge          Code = "too_large"
	WrongType         Code = "wrong_type"
	Threshold         Code = "threshold"
	BadKey            Code = "bad_key"
	RootChain         Code = "root_chain"
	WrongTarget       Code = "wrong_target"
	Rollback          Code = "rollback"
	Equivocation      Code = "equivocation"
	RootBehind        Code = "root_behind"
	Expired           Code = "expired"
	RootExpired       Code = "root_expired"
	ContentMismatch   Code = "content_mismatch"
	LengthExceeded    Code = "length_exceeded"
	BadInfo           Code = "bad_info"
	DecodeLimit       Code = "decode_limit"
	Policy            Code = "policy"
	Blocked           Code = "blocked"
	AgentTooOld       Code = "agent_too_old"
	ChannelGone       Code = "channel_gone"
	AmbiguousArtifact Code = "ambiguous_artifact"
	NoArtifact        Code = "no_artifact"
	UnsafePath        Code = "unsafe_path"
	Quota             Code = "quota"
	ApplyFailed       Code = "apply_failed"
	HealthFailed      Code = "health_failed"
	Reverted          Code = "reverted"
	StateLost         Code = "state_lost"
	StateRepaired     Code = "state_repaired"
	PinMismatch       Code = "pin_mismatch"
	NoSpace           Code = "no_space"
	Permission        Code = "permission"
	Locked            Code = "locked"
	PortInUse         Code = "port_in_use"
	Held              Code = "held"
	Unreachable       Code = "unreachable"
	Usage             Code = "usage"
	Config            Code = "config"
	Interrupted       Code = "interrupted"
	Stale             Code = "stale"
	Behind            Code = "behind"
	ClockBehind       Code = "clock_behind"
	ClockSkew         Code = "clock_skew"
	RunningBlocked    Code = "running_blocked"
)

// Exit statuses that belong to no single code.
const (
	ExitUpdateAvailable = 10 // "agent check" only: there is a newer release
	ExitRestart         = 75 // a self-update was swapped in; for the supervisor only
)

// Row describes one code.
type Row struct {
	Code    Code
	Exit    int    // the process's exit status when a command ends with this code
	Meaning string // one line, for people
}

// Table lists every code, in the order of the exit statuses.
var Table = []Row{
	{OK, 0, "done: something new is trusted, or the command did what was asked"},
	{Same, 0, "already so: what was offered is what is held, and was checked again"},
	{StateRepaired, 0, "the stored state was behind its second copy and was repaired (an event, never a failure)"},

	{IO, 1, "an unexpected local error"},
	{NotFound, 1, "the source has no such document"},

	{Malformed, 2, "not a valid document"},
	{TooLarge, 2, "over the size limit of its type"},
	{WrongType, 2, "another type of document than the one asked for"},
	{Threshold, 2, "too few valid signatures of the role"},
	{RootChain, 2, "a root that does not follow the trusted one"},
	{WrongTarget, 2, "for another fleet, app or channel"},
	{BadKey, 2, "a key in root is undecodable, misnamed, there twice or of small order"},

	{Rollback, 3, "older than what is trusted"},
	{Equivocation, 3, "the same number with other content"},
	{RootBehind, 3, "the roots at hand are older than needed"},

	{Expired, 4, "the manifest is out of date"},
	{RootExpired, 4, "the root is out of date"},
	{Stale, 4, "no fresh beacon (a state, never a failure)"},
	{Behind, 4, "a fresh beacon names a newer manifest (a state, never a failure)"},
	{ClockBehind, 4, "this machine's clock is behind what trusted documents say (a state, never a failure)"},
	{ClockSkew, 4, "a document is dated more than a day ahead of this machine's clock (an event, never a failure)"},
	{RunningBlocked, 4, "the installed program is one the publisher has blocked (an event, never a failure)"},

	{ContentMismatch, 5, "the bytes are not the signed ones"},
	{LengthExceeded, 5, "more bytes than were signed"},
	{BadInfo, 5, "the info dict is not as signed, or of a shape that is not allowed"},
	{DecodeLimit, 5, "a decoder went over its bound"},

	{Policy, 6, "against what root or this machine's configuration allows"},
	{Blocked, 6, "the manifest blocks this content"},
	{AgentTooOld, 6, "needs a newer agent"},
	{ChannelGone, 6, "root has no such channel"},
	{AmbiguousArtifact, 6, "two artifacts fit this machine"},
	{UnsafePath, 6, "a name or directory that could lead elsewhere"},
	{Quota, 6, "the manifest asks for more than this machine's policy allows"},

	{ApplyFailed, 7, "the swap failed; the old program stays"},
	{Reverted, 7, "the old program was put back"},
	{HealthFailed, 7, "the new program is unwell"},

	{StateLost, 8, "the state and its second copy are gone"},
	{PinMismatch, 8, "another fleet than the pinned one"},

	{NoSpace, 9, "not enough disk space"},
	{Permission, 9, "this user may not do that here"},
	{Locked, 9, "another process is at work on the same thing"},
	{PortInUse, 9, "another process listens on that port"},
	{NoArtifact, 9, "the release has nothing for this platform"},

	{Held, 11, "not now: a window, wave, pin, hold or pause"},
	{Unreachable, 12, "no source answers"},
	{Usage, 64, "wrong command line"},
	{Config, 78, "wrong configuration"},
	{Interrupted, 130, "stopped by a signal"},
}

// Lookup returns the row of c.
func Lookup(c Code) (Row, bool) {
	for _, r := range Table {
		if r.Code == c {
			return r, true
		}
	}
	return Row{}, false
}

// Exit returns the exit status of c; 1 for a word that is not in [Table].
func (c Code) Exit() int {
	if r, ok := Lookup(c); ok {
		return r.Exit
	}
	return 1
}

// Error is a failure as it is told to a person and to a program.
type Error struct {
	Code    Code
	Message string         // what is wrong, one line, lower case, without the code
	Detail  []string       // further lines: what was expected, what was found, what still works
	Next    []string       // what to do: commands or short imperatives
	Facts   map[string]any // the same facts for programs; JSON member "detail"
	Err     error          // the cause, or nil
}

// New returns an Error with a formatted message. A %w verb sets its cause.
func New(c Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: c, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Line adds a line of detail.
func (e *Error) Line(format string, args ...any) *Error {
	e.Detail = append(e.Detail, fmt.Sprintf(format, args...))
	return e
}

// Do adds something the reader can do next.
func (e *Error) Do(format string, args ...any) *Error {
	e.Next = append(e.Next, fmt.Sprintf(format, args...))
	return e
}

// Fact adds a fact for programs.
func (e *Error) Fact(name string, value any) *Error {
	if e.Facts == nil {
		e.Facts = map[string]any{}
	}
	e.Facts[name] = value
	return e
}

// Error returns the message alone.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// CodeOf returns the code err carries: OK for nil, Interrupted for a cancelled
// context, IO when it carries none.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var c Code
	if errors.As(err, &c) {
		return c
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	return IO
}
