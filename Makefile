# flatroot's targets; `make` alone builds, `make help` lists them all.

GO          ?= go
PREFIX      ?= /usr/local
BINDIR      ?= $(PREFIX)/bin
MANDIR      ?= $(PREFIX)/share/man
DATADIR     ?= $(PREFIX)/share
UNITDIR     ?= $(PREFIX)/lib/systemd/system
# mount(8) starts helpers from its own fixed list of directories, whatever the prefix is.
HELPERDIR   ?= /usr/sbin
DESTDIR     ?=
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PEERS       ?= $(or $(FLATROOT_PEERS),/var/cache/flatroot-peers)
CORPUS      ?= $(or $(FLATROOT_CORPUS),/var/cache/flatroot-corpus)
# Time for each fuzz target, as `go test -fuzztime` reads it.
FUZZTIME    ?= 10s
# More flags for tests/bench, such as -n 3 or -run=image.
BENCHFLAGS  ?=
# More flags for tests/bench/mount: a short run, one minute or two. All rows, best of five: MOUNTBENCHFLAGS='-n 5'.
MOUNTBENCHFLAGS ?= -n 2 -run '^(find|lstat|small|sequential|start)'
# More flags for `go test`, such as -v, -json or -run=NAME.
TESTFLAGS   ?=
# The Debian suite that the virtual machine's kernel is of: bookworm-backports (6.12) or forky (7.x).
KERNEL      ?= bookworm-backports
# RACE=1 tests with the race detector, the one thing here that needs a C compiler.
RACE        ?=
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED := $(if $(RACE),1,0)
# The tags leave out of cli/v2 a Markdown parser, and storage drivers that nothing is written with; all works without them too. With
# cgo, which the race detector needs, the driver for btrfs wants headers that are not everywhere.
BUILD := $(GO) build -trimpath -tags urfave_cli_no_docs,exclude_graphdriver_btrfs,exclude_graphdriver_zfs -ldflags '-s -w -X main.version=$(VERSION)'
TEST  := $(GO) test $(if $(RACE),-race -tags exclude_graphdriver_btrfs) $(TESTFLAGS)

.DEFAULT_GOAL := build

.PHONY: build
build: ## static binaries: bin/flatroot and bin/mount.flatroot
	$(BUILD) -o bin/ ./cmd/...

.PHONY: test
test: ## what passes everywhere, as any user, with Go, git and make (RACE=1: with the race detector)
	FLATROOT_TEST=unit $(TEST) ./...

.PHONY: test-root
test-root: ## also what mounts, loops and changes owners; as root
	FLATROOT_TEST=root $(TEST) ./...

.PHONY: test-peers
test-peers: ## also comparisons with C composefs and erofs-utils; as root (fetched by tests/peers/setup.sh)
	tests/peers/setup.sh $(PEERS)
	FLATROOT_TEST=peers FLATROOT_PEERS=$(PEERS) $(TEST) ./...

.PHONY: test-vm
test-vm: ## what needs fs-verity, in a virtual machine, as any user (fetched by tests/vm/setup.sh; KERNEL=forky: another kernel)
	tests/vm/test.sh -kernel=$(KERNEL) $(TESTFLAGS)

.PHONY: crash
crash: ## kill, fail and cut from power at every point, then look whether anything was lost; as root
	FLATROOT_TEST=crash $(TEST) ./tests/crash/... ./tests/powercut/... $(wildcard ./tests/soak)

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, syntax of the shell scripts
	@files=$$(git ls-files -z -- '*.go' | xargs -0 gofmt -l); \
	if [ -n "$$files" ]; then printf 'not as gofmt would have it:\n%s\n' "$$files" >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	@git grep -lzE -e '^#!/bin/(ba)?sh' | xargs -0 -n 1 bash -n

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (10s), one after another
	@grep -rho --include='*_test.go' -H '^func Fuzz[A-Za-z0-9_]*' . | sed 's|/[^/]*:func | |' | sort | \
	while read -r dir name; do \
		echo "== $$dir $$name"; \
		$(GO) test "$$dir" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x || exit 1; \
	done

.PHONY: bench
bench: build ## ratios to the peers, interleaved runs; as root; makes the corpus of images first, if need be
	tests/peers/setup.sh --bench $(PEERS)
	FLATROOT_PEERS=$(PEERS) tests/bench/corpus.sh $(CORPUS)
	FLATROOT_PEERS=$(PEERS) FLATROOT_CORPUS=$(CORPUS) $(GO) run ./tests/bench $(BENCHFLAGS)
	FLATROOT_PEERS=$(PEERS) tests/bench/mount/peers.sh
	FLATROOT_PEERS=$(PEERS) FLATROOT_CORPUS=$(CORPUS) $(GO) run ./tests/bench/mount $(MOUNTBENCHFLAGS)

.PHONY: bench-chunk
bench-chunk: ## megabytes that updates fetch of chunked images, by recorded histories; an hour (BENCHFLAGS='-run "server weekly"': less)
	$(GO) run ./tests/bench/chunk $(BENCHFLAGS)

.PHONY: nightly
nightly: ## the long figures: all suites at nightly size, ten minutes a fuzz target, the benchmarks
	FLATROOT_NIGHTLY=1 $(MAKE) test-peers RACE=1 TESTFLAGS='-timeout=4h'
	FLATROOT_NIGHTLY=1 $(MAKE) crash TESTFLAGS='-timeout=12h -v'
	$(MAKE) test-vm
	$(MAKE) test-vm KERNEL=forky
	$(MAKE) fuzz FUZZTIME=10m
	$(MAKE) bench

.PHONY: golden
golden: ## write the golden files anew; a changed one is a format break, so look at the diff
	FLATROOT_TEST=unit FLATROOT_UPDATE=1 $(GO) test -count=1 ./...
	git diff --stat

.PHONY: demo
demo: build ## the whole way in two minutes: build, push, pull, mount, update, diff, chunk
	tests/demo.sh bin/flatroot

.PHONY: man
man: build ## man pages, from the help texts, in bin/man
	rm -rf bin/man
	mkdir -p bin/man
	bin/flatroot man bin/man

.PHONY: install
install: man ## binaries, names that mount(8) and umount(8) look for, man pages, completions, units (DESTDIR, PREFIX, HELPERDIR)
	install -D -m 755 bin/flatroot $(DESTDIR)$(BINDIR)/flatroot
	install -D -m 755 bin/mount.flatroot $(DESTDIR)$(HELPERDIR)/mount.flatroot
	for name in mount.composefs umount.flatroot umount.fuse.flatroot; do \
		ln -sf mount.flatroot $(DESTDIR)$(HELPERDIR)/$$name || exit 1; \
	done
	for page in bin/man/*.[1-8]; do \
		install -D -m 644 "$$page" "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}" || exit 1; \
	done
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/local/bin|$(BINDIR)|' doc/examples/flatroot-fsck.service >$(DESTDIR)$(UNITDIR)/flatroot-fsck.service
	install -m 644 doc/examples/flatroot-fsck.timer $(DESTDIR)$(UNITDIR)/flatroot-fsck.timer
	install -d $(DESTDIR)$(DATADIR)/bash-completion/completions $(DESTDIR)$(DATADIR)/zsh/site-functions \
		$(DESTDIR)$(DATADIR)/fish/vendor_completions.d
	bin/flatroot completion bash >$(DESTDIR)$(DATADIR)/bash-completion/completions/flatroot
	bin/flatroot completion zsh >$(DESTDIR)$(DATADIR)/zsh/site-functions/_flatroot
	bin/flatroot completion fish >$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/flatroot.fish

.PHONY: clean
clean: ## remove what the other targets made in the tree
	rm -rf bin

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | sort | while IFS='	' read -r target text; do \
		printf '%-12s %s\n' "$$target" "$$text"; \
	done
