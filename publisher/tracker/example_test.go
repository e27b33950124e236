package tracker_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"shoal/publisher/tracker"
)

// A tracker answers for the torrents it was given, and for no others.
func Example() {
	t := tracker.New(tracker.Config{})
	t.Set([]tracker.Torrent{{Infohash: [20]byte([]byte("an infohash: 20 byte"))}})
	mux := http.NewServeMux()
	mux.HandleFunc("/announce", t.ServeAnnounce)
	mux.HandleFunc("/scrape", t.ServeScrape)

	ask := func(query string) {
		r := httptest.NewRequest(http.MethodGet, "/announce?"+query, nil)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Printf("%.40s...\n", w.Body)
	}
	ask("info_hash=an%20infohash%3A%2020%20byte&peer_id=-XX0000-abcdefghijkl&port=7801&left=9")
	ask("info_hash=a-stranger-s-torrent&peer_id=-XX0000-abcdefghijkl&port=7801&left=9")
	// Output:
	// d8:completei0e10:incompletei1e8:interval...
	// d14:failure reason49:this tracker serves...
}
