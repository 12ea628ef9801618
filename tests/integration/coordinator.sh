#!/usr/bin/env bash
# What the coordinator promises: an id counts once, Redis is only a view, and dying loses nothing.
source "$(dirname "$0")/lib.sh"
use_cluster

# the same job again is ignored; another body under its id is refused, and the job is left alone
job "$RUN-once" "a red heart"
job "$RUN-once" "a red heart"
job "$RUN-once" "a blue star"
await_state "$RUN-once" succeeded
job "$RUN-once" "a red heart"
job "$RUN-once" "a green circle"
conflicts() { [[ $(dead_letters_of "$RUN-once" | wc -l) == 2 ]]; }
within 30 conflicts || fail "$(dead_letters_of "$RUN-once" | wc -l) dead letters of $RUN-once, not 2"
expect "their code" "$(dead_letters_of "$RUN-once" | jq -r .error_code | sort -u)" conflict
expect "its prompt" "$(one_result "$RUN-once" | jq -r .request.prompt)" "a red heart"

# a cancellation of what nobody knows
produce "$RUN-nobody" <<<'{"version":1,"type":"cancel"}'
unknown() { [[ $(dead_letters_of "$RUN-nobody" | jq -r .error_code) == not_found ]]; }
within 30 unknown || fail "no dead letter of a cancellation without a job"
expect "the hash of $RUN-nobody" "$(redis EXISTS "unclip:job:$RUN-nobody")" 0

# Redis is emptied: the statuses of live and of ended jobs come back as they were
fields=(state type prompt seed stage images_total results timings finished_at partition)
status_of() { redis HMGET "unclip:job:$1" "${fields[@]}"; }
before=$(status_of "$RUN-once")
job "$RUN-live" "a red heart" '"steps": {"prior": 2, "decoder": 300}'
within 60 state_is "$RUN-live" running || fail "$RUN-live does not run"
redis FLUSHALL >/dev/null
is_back() { [[ -n $(field "$1" state) ]]; }
within 30 is_back "$RUN-once" || fail "the status of an ended job did not come back"
expect "its status" "$(status_of "$RUN-once")" "$before"
within 30 is_back "$RUN-live" || fail "the status of a live job did not come back"
await_state "$RUN-live" succeeded

# killed with jobs on their way: each ends once
for i in {1..10}; do job "$RUN-kill-$i" "a red heart"; done
kill -9 "$(cluster status --json | jq '.processes[] | select(.name == "coordinator-0").pid')"
for i in {11..20}; do job "$RUN-kill-$i" "a red heart"; done
cluster up
for i in {1..20}; do await_state "$RUN-kill-$i" succeeded; done
once() { records unclip.results | jq -r .id | grep "^$RUN-kill-" | sort; }
expect "results of the killed coordinator's jobs" "$(once | wc -l), $(once | uniq | wc -l) of them distinct" \
  "20, 20 of them distinct"
