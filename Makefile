# The handful of commands that people need; CMakePresets.json and ops/ do the work.
.DEFAULT_GOAL := all
.PHONY: all dev test asan format clean up down help

all: ## a release build into build/, programs in build/bin/
	@cmake --preset release
	@cmake --build --preset release

dev: ## a build with warnings as errors and tests into build/dev/
	@cmake --preset dev
	@cmake --build --preset dev

test: ## build and run all fast tests
	@./ops/test

asan: ## unit and golden tests under ASan and UBSan
	@./ops/test --asan

format: ## lay out the C and C++ files as .clang-format says
	@git ls-files '*.c' '*.h' '*.cc' | xargs clang-format -i

up: ## start Kafka, Redis, the coordinator and the workers
	@./ops/cluster up

down: ## stop them
	@./ops/cluster down

clean: ## remove build/
	@rm -rf build

help: ## this list
	@sed -n 's/^\([a-z]*\): ##/\1\t/p' $(MAKEFILE_LIST) | expand -t 10
