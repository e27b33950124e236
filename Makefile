# What one does with Shoal's tree. `make help` lists it.

GO      ?= go
# The torrent library's SQLite and bbolt storages are not used; leaving them out keeps the first build short.
TAGS    := nosqlite,noboltdb
GOFLAGS := -tags=$(TAGS)
LDFLAGS := -s -w
TOOL    := $(GO) tool -modfile=internal/tools/tools.mod
FUZZTIME ?= 10s
RACE    ?= ./...
PLATFORMS ?= linux/amd64 linux/arm64 linux/arm darwin/amd64 darwin/arm64 windows/amd64

export CGO_ENABLED ?= 0
export GOFLAGS

.DEFAULT_GOAL := help
.PHONY: help build demo test test-long test-crash test-net test-web check race fuzz vuln bench bench-swarm dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build ./shoal, one static binary
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o shoal ./cmd/shoal

demo: build ## run a publisher and a small fleet on this machine, updated live
	./shoal demo $(DEMOFLAGS)

test: ## every fast test, with go vet; about two minutes on two cores
	$(GO) vet ./...
	@$(GO) test -json ./... | $(GO) run ./internal/tools/testsum

# -count=1, because these start programs that they build, and the cache of test results does
# not go by what is in those.
test-long: ## the slow and the privileged tests too (root for namespaces and small filesystems)
	@SHOAL_LONG=1 $(GO) test -count=1 -json -timeout 25m -run 'Long' -skip 'LongCrash|LongNet|LongWeb' ./... | $(GO) run ./internal/tools/testsum

test-crash: ## kill real processes at every call and cut the power of real file systems (root, for loop devices)
	@SHOAL_LONG=1 $(GO) test -count=1 -json -timeout 9m -run 'LongCrash' ./agent/... | $(GO) run ./internal/tools/testsum

test-net: ## real processes in network namespaces: a LAN with nothing else, a split one, stock clients (root)
	@SHOAL_LONG=1 $(GO) test -count=1 -json -timeout 9m -run 'LongNet' ./cmd/shoal/nettest | $(GO) run ./internal/tools/testsum

check: ## gofmt, go vet, staticcheck, a tidy go.mod, and a build for every platform
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) mod tidy -diff
	@for p in $(PLATFORMS); do echo "build $$p"; GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/shoal || exit 1; done

test-web: ## the fleet page in a real Chromium: a rollout live, axe, hostile words, no JavaScript
	@SHOAL_LONG=1 $(GO) test -count=1 -json -timeout 9m -run 'LongWeb' ./publisher | $(GO) run ./internal/tools/testsum

race: ## the fast tests under the race detector (needs a C compiler); RACE=... chooses packages
	@CGO_ENABLED=1 $(GO) test -race -json $(RACE) | $(GO) run ./internal/tools/testsum

fuzz: ## each fuzz target for FUZZTIME (10s)
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "fuzz $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; done

vuln: ## known vulnerabilities in what is linked (needs the Go vulnerability database)
	$(TOOL) govulncheck ./...

bench: ## the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-swarm: build ## the swarm bench found at SWARMBENCH=DIR (root; real links between namespaces)
	@[ -n "$(SWARMBENCH)" ] || { echo "usage: make bench-swarm SWARMBENCH=DIR"; exit 2; }
	PATH="$(CURDIR):$$PATH" $(SWARMBENCH)/swarmbench.py $(BENCHFLAGS)

dist: ## archives, deb, rpm, an OCI image, SBOMs and hashes in dist/, for PLATFORMS; DIST_KEY=FILE signs the hashes
	@rm -rf dist && mkdir -p dist/bin
	@for p in $(PLATFORMS); do os=$${p%/*}; arch=$${p#*/}; ext=; [ $$os = windows ] && ext=.exe; echo "build $$p"; \
	  GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/bin/shoal-$$os-$$arch$$ext ./cmd/shoal || exit 1; done
	@for c in agent publisher; do $(GO) run -trimpath -ldflags '$(LDFLAGS)' ./cmd/shoal config example $$c > dist/bin/$$c.yaml.example || exit 1; done
	@$(GO) run ./internal/tools/dist -key "$(DIST_KEY)" dist

clean: ## remove what the targets above made
	rm -rf shoal shoal.exe dist
