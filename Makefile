# `make demo` runs the gateway with everything embedded, `make test` runs every
# check. Both need Go and make only; what else they need they fetch.

GO            ?= go
GOLANGCI      := v2.15.0
TOOLS         := $(CURDIR)/.tools
FUZZTIME      ?= 10s
FUZZPROCS     ?= 2

.PHONY: all build demo test vet fmt lint unit race coverage integration fuzz fuzz-smoke soak bench interop browser-test xcaddy system clean

all: build

build:
	$(GO) build -o moat ./cmd/moat

demo: build
	./moat demo

# The order is from cheap to dear, so that a mistake shows early.
test: system fmt vet lint race coverage unit fuzz-smoke integration

fmt:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }

vet:
	$(GO) vet ./...

$(TOOLS)/golangci-lint-$(GOLANGCI):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	mv $(TOOLS)/golangci-lint $@

lint: $(TOOLS)/golangci-lint-$(GOLANGCI)
	$< run ./...

# The domain, under the race detector.
race:
	$(GO) test -race -shuffle=on ./internal/...

# What decides must be covered: the figures are printed, below 95 % it fails.
coverage:
	@./scripts/coverage 95 ./internal/canon ./internal/rbac ./internal/token

unit:
	$(GO) test -shuffle=on ./caddymodule/... ./cmd/...

# The whole gateway as a process, in front of real upstreams and a real Redis.
integration: build
	MOAT_BIN=$(CURDIR)/moat $(GO) test -count=1 -timeout 10m ./integration/...

# Each fuzz target for FUZZTIME, one after the other.
fuzz-smoke:
	@./scripts/fuzz 3s

fuzz:
	@./scripts/fuzz $(FUZZTIME)

# What takes too long for the tests, with figures.
soak: build
	@MOAT_BIN=$(CURDIR)/moat ./scripts/soak

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./internal/... ./caddymodule/limit

# Tokens of and for JavaScript's libraries, a real OpenID provider, and what MDN's
# HTTP Observatory and Google's CSP Evaluator say about the headers. Longer than
# the tests, and not part of them.
interop: build
	@./scripts/system nodejs npm
	MOAT_BIN=$(CURDIR)/moat ./scripts/interop

# Applications that other people wrote, used in a browser through the gateway.
# Longer than the tests, and not part of them.
browser-test: build
	@./scripts/system chromium nodejs npm
	MOAT_BIN=$(CURDIR)/moat ./scripts/browser

# What the system itself has to provide for the tests.
system:
	@./scripts/system redis-server postgresql curl python3 openssl

# Prints the command line that builds this gateway with plugins of your own.
xcaddy:
	@$(GO) run ./scripts/xcaddy

clean:
	rm -rf moat tmp
