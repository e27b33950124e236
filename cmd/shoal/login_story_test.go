package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

var formMark = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)

// logIn opens a link to the fleet page in a new browser and presses the button there:
// login STATUS LINK REGEXP, of the page that it comes to.
func logIn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: login STATUS LINK REGEXP")
	}
	link, err := url.Parse(args[1])
	ts.Check(err)
	jar, err := cookiejar.New(nil)
	ts.Check(err)
	browser := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	read := func(resp *http.Response, err error) (int, string) {
		ts.Check(err)
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		ts.Check(err)
		return resp.StatusCode, string(b)
	}
	// Looked at, as mail programs and browsers do beforehand, it stays good.
	read(browser.Get(link.String()))
	_, page := read(browser.Get(link.String()))
	mark := formMark.FindStringSubmatch(page)
	if mark == nil {
		ts.Fatalf("%s has no form: %.300s", link, page)
	}
	form := url.Values{"csrf": {mark[1]}, "token": {link.Query().Get("once")}}
	status, page := read(browser.PostForm(link.Scheme+"://"+link.Host+"/login", form))
	if strconv.Itoa(status) != args[0] || !regexp.MustCompile(args[2]).MatchString(page) {
		ts.Fatalf("it comes to status %d, want %s and %q: %.1500s", status, args[0], args[2], page)
	}
}
