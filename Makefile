# Makefile - builds gist, libgist and their tests.  `make help` lists the targets.
#
#   build/$(VARIANT)/gist, libgist.a, libgist.so.0      what `make` builds
#   build/$(VARIANT)/obj/...                            one object per source, with its header dependencies
#   build/$(VARIANT)/rooms.a                            every object of src/, internal symbols reachable: tests, cli
#   build/$(VARIANT)/tests/...                          one program per tests/test_*.c and per fuzz target's replay
#
# libgist.a is the rooms linked into one object whose hidden symbols have been made local, so that the static library
# puts no name but gist_* into its user's program either.

VARIANT ?= release
BUILD ?= build/$(VARIANT)
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# ---- compiler and flags --------------------------------------------------------------------------------------------

AR ?= ar
OBJCOPY ?= objcopy
PKG_CONFIG ?= pkg-config
PKGS := libpcre2-8 libutf8proc jansson libxxhash
MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null || uname -m)
VERSION := $(shell awk '/define GIST_VERSION_/ { v = v (v == "" ? "" : ".") $$3 } END { print v }' include/gist.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

# The instruction sets of one file each: only code behind the run-time dispatch is compiled with them.
ISA_AVX2 := -mavx2 -mfma -mf16c
ISA_AVX512 := $(ISA_AVX2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512
ISA_AVX512VNNI := $(ISA_AVX512) -mavx512vnni
ISA_AVX512BF16 := $(ISA_AVX512) -mavx512bf16
ISA_AMX := $(ISA_AVX512BF16) -mamx-tile -mamx-bf16

VARIANTS := release debug asan tsan
OPT_release := -O2 -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
OPS_release := -O3 -U_FORTIFY_SOURCE
OPT_debug := -O0 -g3
OPT_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -fno-omit-frame-pointer -fsanitize=thread
LINK_release := -Wl,-z,relro,-z,now
LINK_asan := -fsanitize=address,undefined
LINK_tsan := -fsanitize=thread
ifeq ($(filter $(VARIANT),$(VARIANTS)),)
$(error VARIANT=$(VARIANT) is none of: $(VARIANTS))
endif
OPT := $(OPT_$(VARIANT))

# gcc cannot see that a failed status leaves the function (TRY), so it calls outputs of a failed call "maybe
# uninitialized"; clang's exact analysis of the same fault stays on.
IS_CLANG := $(findstring clang,$(shell $(CC) --version 2>/dev/null))
# gcc keeps frames on fake stacks to find uses after return, and aligns them to less than a register of 64 bytes needs.
OPS_asan := $(OPT_asan) $(if $(IS_CLANG),,--param asan-use-after-return=0)
OPS_OPT := $(or $(OPS_$(VARIANT)),$(OPT))
WARN := -Wall -Wextra -Wpedantic -Wconversion -Wshadow $(if $(IS_CLANG),,-Wno-maybe-uninitialized) \
    $(if $(filter 1,$(WERROR)),-Werror)
BASE_CPPFLAGS := -D_GNU_SOURCE -Iinclude -Isrc
# No -ffast-math and no contraction: every result is the one the source spells out.
BASE_CFLAGS := -std=c11 -g $(WARN) -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -pthread
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null || echo -lpcre2-8 -lutf8proc -ljansson -lxxhash)
# Line editing of gist chat, where libedit is installed; LIBEDIT=0 does without.
LIBEDIT ?= $(shell $(PKG_CONFIG) --exists libedit 2>/dev/null && echo 1)
EDIT_CFLAGS := $(if $(filter 1,$(LIBEDIT)),-DGIST_LIBEDIT $(shell $(PKG_CONFIG) --cflags libedit))
EDIT_LIBS := $(if $(filter 1,$(LIBEDIT)),$(shell $(PKG_CONFIG) --libs libedit))
# The program alone talks HTTP (gist eval --judge); the library does not.
CURL_CFLAGS := $(shell $(PKG_CONFIG) --cflags libcurl 2>/dev/null)
CURL_LIBS := $(shell $(PKG_CONFIG) --libs libcurl 2>/dev/null || echo -lcurl)
TEST_CFLAGS := -Itests $(shell $(PKG_CONFIG) --cflags cmocka 2>/dev/null)
TEST_LIBS := $(shell $(PKG_CONFIG) --libs cmocka 2>/dev/null || echo -lcmocka)
LIBS := $(PKG_LIBS) -lm -lpthread
LINK := $(LINK_$(VARIANT)) -pthread
# Sanitizers leave their own symbols to the program.
comma := ,
NO_UNDEFINED := $(if $(filter release debug,$(VARIANT)),-Wl$(comma)-z$(comma)defs)

# ---- sources -------------------------------------------------------------------------------------------------------

X86_SRC := $(wildcard src/ops/x86/*.c)
LIB_SRC := $(filter-out $(X86_SRC),$(wildcard src/*/*.c src/ops/*/*.c))
ifneq ($(filter x86_64%,$(MACHINE)),)
LIB_SRC += $(X86_SRC)
else
BASE_CPPFLAGS += -DGIST_NO_X86
endif
CLI_SRC := $(wildcard cli/*.c)
DEMO_SRC := $(wildcard demo/*.c)
TEST_SRC := $(wildcard tests/test_*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
LIB_OBJ := $(call objects,$(LIB_SRC))
CLI_OBJ := $(call objects,$(CLI_SRC))
DEMO_OBJ := $(call objects,$(DEMO_SRC))
TEST_HELP := $(call objects,tests/testing.c tests/tiny.c)
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRC))
REPLAYS := $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/tests/replay_%,$(FUZZ_SRC))
SCRIPTS := $(filter-out tests/cli_common.sh,$(wildcard tests/*.sh))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(FUZZ_SRC))

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),:,printf '  %-5s %s\n' $(1) $(2))

.PHONY: all objects tests deps test demo check fuzz fuzzers install uninstall format clean help info FORCE
FORCE:

# ---- library and program -------------------------------------------------------------------------------------------

all: $(BUILD)/gist $(BUILD)/libgist.a $(BUILD)/libgist.so.$(SOVERSION) ## build gist, libgist.a and libgist.so (default)

objects: $(LIB_OBJ)

$(BUILD)/obj/src/ops/%.o: OPT := $(OPS_OPT)
$(call objects,$(wildcard src/ops/x86/*avx2*.c)): ISA := $(ISA_AVX2)
$(call objects,$(filter-out %bf16.c %vnni.c,$(wildcard src/ops/x86/*avx512*.c))): ISA := $(ISA_AVX512)
$(call objects,$(wildcard src/ops/x86/*avx512vnni*.c)): ISA := $(ISA_AVX512VNNI)
$(call objects,$(wildcard src/ops/x86/*avx512bf16*.c)): ISA := $(ISA_AVX512BF16)
$(call objects,$(wildcard src/ops/x86/*amx*.c)): ISA := $(ISA_AMX)
$(BUILD)/obj/tests/%.o: BASE_CPPFLAGS += $(TEST_CFLAGS)
$(BUILD)/obj/cli/cmd_chat.o: BASE_CPPFLAGS += $(EDIT_CFLAGS)
$(BUILD)/obj/cli/cmd_chat.o: $(BUILD)/edit
$(BUILD)/obj/cli/http_post.o: BASE_CPPFLAGS += $(CURL_CFLAGS)
$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@$(call say,CC,$<)
	$(Q)$(CC) $(BASE_CPPFLAGS) $(PKG_CFLAGS) $(CPPFLAGS) $(BASE_CFLAGS) $(OPT) $(ISA) $(CFLAGS) -MMD -MP -c -o $@ $<

# Expanded here, once: inside a rule it would see that rule's own variables.
# Rebuilt only when what it holds has changed: other flags rebuild objects, another list of sources the archive.
FLAGS_TEXT := $(CC) $(shell $(CC) -dumpversion 2>/dev/null) $(BASE_CPPFLAGS) $(PKG_CFLAGS) $(CPPFLAGS) $(BASE_CFLAGS) \
    $(OPT) $(OPS_OPT) $(CFLAGS) $(LINK) $(LDFLAGS)
define keep_text
@mkdir -p $(@D)
@echo '$(strip $(1))' | cmp -s - $@ || echo '$(strip $(1))' > $@
endef
$(BUILD)/flags: FORCE $(BUILD)/cc
	$(call keep_text,$(FLAGS_TEXT))
$(BUILD)/cc: FORCE # for scripts; may be several words
	$(call keep_text,$(CC))
$(BUILD)/edit: FORCE
	$(call keep_text,$(EDIT_CFLAGS))
$(BUILD)/sources: FORCE
	$(call keep_text,$(LIB_SRC))

$(BUILD)/rooms.a: $(LIB_OBJ) $(BUILD)/sources
	@$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(LIB_OBJ)

$(BUILD)/libgist.a: $(BUILD)/rooms.a
	@$(call say,AR,$@)
	$(Q)$(CC) -r -nostdlib -o $(BUILD)/libgist.o $(LIB_OBJ) && $(OBJCOPY) --localize-hidden $(BUILD)/libgist.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(BUILD)/libgist.o

$(BUILD)/libgist.so.$(SOVERSION): $(BUILD)/rooms.a
	@$(call say,LINK,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(@F) $(NO_UNDEFINED) $(LINK) $(LDFLAGS) \
	    -o $@ $(LIB_OBJ) $(LIBS)
	$(Q)ln -sf $(@F) $(BUILD)/libgist.so

$(BUILD)/gist: $(CLI_OBJ) $(BUILD)/rooms.a
	@$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(LDFLAGS) -o $@ $(CLI_OBJ) $(BUILD)/rooms.a $(EDIT_LIBS) $(CURL_LIBS) $(LIBS)

# The demonstration's data program stands on the rooms too, but is not installed.
$(BUILD)/gist-demo: $(DEMO_OBJ) $(BUILD)/rooms.a
	@$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(LDFLAGS) -o $@ $(DEMO_OBJ) $(BUILD)/rooms.a $(LIBS)

# ---- tests ---------------------------------------------------------------------------------------------------------

deps: ## install the system packages the build needs, if any is missing (Debian)
	@CC='$(CC)' sh dev/packages

# A second make, because the packages may have been installed a moment ago.
test: deps ## build and run every test; ONLY="base tensor" picks some, VARIANT=asan runs them under ASan and UBSan
	@$(MAKE) --no-print-directory all tests
	@bash tests/run $(BUILD) $(if $(ONLY),-o "$(ONLY)") $(TESTS) $(REPLAYS) $(SCRIPTS)

tests: $(TESTS) $(REPLAYS) $(BUILD)/gist-demo

$(TESTS): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TEST_HELP) $(BUILD)/rooms.a
	@mkdir -p $(@D)
	@$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(LDFLAGS) -o $@ $^ $(TEST_LIBS) $(LIBS)

$(REPLAYS): $(BUILD)/tests/replay_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o \
    $(BUILD)/rooms.a
	@mkdir -p $(@D)
	@$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(LDFLAGS) -o $@ $^ $(LIBS)

# make tests/test_base: build and run one test program while other rooms may be broken; objects that do not compile
# are left out of the archive, and only what the test needs is linked from the rest.
ONE := $(TEST_SRC:%.c=%)
.PHONY: $(ONE)
$(ONE): FORCE
	@$(MAKE) --no-print-directory -k objects >/dev/null 2>&1 || true
	@$(MAKE) --no-print-directory -s $(BUILD)/obj/$@.o $(TEST_HELP)
	@mkdir -p $(BUILD)/tests && rm -f $(BUILD)/part-$(@F).a && $(AR) rcs $(BUILD)/part-$(@F).a `find $(BUILD)/obj/src -name "*.o"`
	@$(CC) $(LINK) $(LDFLAGS) -o $(BUILD)/$@ $(BUILD)/obj/$@.o $(TEST_HELP) $(BUILD)/part-$(@F).a \
	    $(TEST_LIBS) $(LIBS)
	@bash tests/run $(BUILD) $(BUILD)/$@

# The mechanics on a tiny random model, as long as models/demo holds no trained one.
demo: deps ## compress a prompt, answer from its gist; with a trained MODEL=DIR: three ways, SEED=2 draws another prompt
	@$(MAKE) --no-print-directory all $(BUILD)/gist-demo
	@if [ -n "$(MODEL)" ] || [ -d models/demo ]; then sh dev/tour $(BUILD) "$(or $(SEED),1)" $(MODEL); \
	else sh dev/demo $(BUILD)/gist; fi

check: ## everything CI runs: tests, sanitizers, both compilers, style, includes, exports
	@bash .ci/run

fuzz: ## build the fuzz targets (clang, libFuzzer, ASan, UBSan) as build/fuzz/fuzz_NAME
	@$(MAKE) --no-print-directory BUILD=build/fuzz VARIANT=asan CC=clang CFLAGS=-fsanitize=fuzzer-no-link fuzzers

fuzzers: $(FUZZERS)

$(FUZZERS): $(BUILD)/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/rooms.a
	@$(call say,FUZZ,$@)
	$(Q)$(CC) -fsanitize=fuzzer $(LINK) $(LDFLAGS) -o $@ $^ $(LIBS)

# ---- installation --------------------------------------------------------------------------------------------------

HERE_BIN = $(DESTDIR)$(PREFIX)/bin
HERE_LIB = $(DESTDIR)$(LIBDIR)
HERE_INC = $(DESTDIR)$(PREFIX)/include

install: all ## install binary, header, libraries and pkg-config file under DESTDIR and PREFIX (/usr/local)
	install -d $(HERE_BIN) $(HERE_INC) $(HERE_LIB)/pkgconfig
	install -m 755 $(BUILD)/gist $(HERE_BIN)/gist
	install -m 644 include/gist.h $(HERE_INC)/gist.h
	install -m 644 $(BUILD)/libgist.a $(HERE_LIB)/libgist.a
	install -m 755 $(BUILD)/libgist.so.$(SOVERSION) $(HERE_LIB)/libgist.so.$(VERSION)
	ln -sf libgist.so.$(VERSION) $(HERE_LIB)/libgist.so.$(SOVERSION)
	ln -sf libgist.so.$(SOVERSION) $(HERE_LIB)/libgist.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@PKGS@|$(PKGS)|' \
	    gist.pc.in > $(HERE_LIB)/pkgconfig/gist.pc

uninstall: ## remove what install put there
	rm -f $(HERE_BIN)/gist $(HERE_INC)/gist.h $(HERE_LIB)/libgist.a $(HERE_LIB)/libgist.so \
	    $(HERE_LIB)/libgist.so.$(SOVERSION) $(HERE_LIB)/libgist.so.$(VERSION) $(HERE_LIB)/pkgconfig/gist.pc

# ---- about ---------------------------------------------------------------------------------------------------------

format: ## lay out all C sources with clang-format
	clang-format -i $(wildcard include/*.h src/*/*.[ch] src/*/*/*.[ch] \
	    cli/*.[ch] demo/*.[ch] dev/*.c tests/*.[ch] tests/fuzz/*.c examples/*.c)

clean: ## remove build/
	rm -rf build

help: ## this list
	@echo 'make TARGET [VARIANT=release|debug|asan|tsan] [CC=gcc|clang] [V=1] [WERROR=1] [JOBS=N] [BUILD=DIR]'
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  %-10s %s\n", $$1, $$2 }'
	@echo '  tests/NAME build and run the one test program tests/NAME.c'

info: ## show what the build found: compiler, libraries, CPU features
	@CC='$(CC)' PKG_CONFIG='$(PKG_CONFIG)' sh dev/info '$(VARIANT)' '$(VERSION)' '$(MACHINE)' $(PKGS) libcurl cmocka

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(DEMO_OBJ:.o=.d) $(wildcard $(BUILD)/obj/tests/*.d $(BUILD)/obj/tests/fuzz/*.d)
