package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"shoal/agent/internal/command"
)

// maxBody is how much of an HTTP answer is read: enough for its first line, which is
// what an error quotes.
const maxBody = 4 << 10

// Command passes while argv exits 0. It is an argv list and runs with a clean
// environment; at the end of its try its whole process group is killed.
func Command(argv []string, p Policy) (Check, error) {
	if len(argv) == 0 {
		return nil, errors.New("a command check needs a command")
	}
	if err := p.defaults(); err != nil {
		return nil, err
	}
	return &repeated{p, func(ctx context.Context) error {
		_, err := command.Run(ctx, command.Command{Argv: argv, Timeout: p.Try})
		return err
	}}, nil
}

// HTTP passes while a GET of rawURL answers 2xx. Redirects are not followed, no
// proxy is used, and a certificate is checked as usual.
func HTTP(rawURL string, p Policy) (Check, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("an http check needs an http or https address, not %q", rawURL)
	}
	if err := p.defaults(); err != nil {
		return nil, err
	}
	// A connection kept from an earlier try could be the old program's.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &repeated{p, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, p.Try)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 == 2 {
			return nil
		}
		first, _ := bufio.NewReader(io.LimitReader(resp.Body, maxBody)).ReadString('\n')
		if first = strings.TrimSpace(strings.ToValidUTF8(first, "\uFFFD")); first != "" {
			return fmt.Errorf("GET %q answered %s: %q", rawURL, resp.Status, first)
		}
		return fmt.Errorf("GET %q answered %s", rawURL, resp.Status)
	}}, nil
}

// TCP passes while addr ("host:port") accepts connections.
func TCP(addr string, p Policy) (Check, error) {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return nil, fmt.Errorf("a tcp check needs host:port, not %q", addr)
	}
	if err := p.defaults(); err != nil {
		return nil, err
	}
	return &repeated{p, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, p.Try)
		defer cancel()
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}}, nil
}
