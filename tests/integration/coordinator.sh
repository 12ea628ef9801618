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
within 60 conflicts || fail "$(dead_letters_of "$RUN-once" | wc -l) dead letters of $RUN-once, not 2"
expect "their code" "$(dead_letters_of "$RUN-once" | jq -r .error_code | sort -u)" conflict
expect "its prompt" "$(one_result "$RUN-once" | jq -r .request.prompt)" "a red heart"

# a cancellation of what nobody knows
produce "$RUN-nobody" <<<'{"version":1,"type":"cancel"}'
unknown() { [[ $(dead_letters_of "$RUN-nobody" | jq -r .error_code) == not_found ]]; }
within 60 unknown || fail "no dead letter of a cancellation without a job"
expect "the hash of $RUN-nobody" "$(redis EXISTS "unclip:job:$RUN-nobody")" 0

# Redis is emptied: the statuses of live and of ended jobs come back as they were
fields=(state type prompt seed stage images_total results timings finished_at partition)
status_of() { redis HMGET "unclip:job:$1" "${fields[@]}"; }
before=$(status_of "$RUN-once")
cluster stop decoder-0 # holds the job
job "$RUN-live" "a red heart"
within 60 state_is "$RUN-live" running || fail "$RUN-live does not run"
redis FLUSHALL >/dev/null
is_as_before() { [[ $(status_of "$RUN-once") == "$before" ]]; }
within 60 is_as_before || fail "the status of an ended job is '$(status_of "$RUN-once")', not '$before'"
within 60 state_is "$RUN-live" running || fail "the status of a live job did not come back"
cluster start decoder-0
await_state "$RUN-live" succeeded

# killed with jobs on their way: each ends once
for i in {1..10}; do job "$RUN-kill-$i" "a red heart"; done
kill_now coordinator-0
for i in {11..20}; do job "$RUN-kill-$i" "a red heart"; done
cluster start coordinator-0
for i in {1..20}; do await_state "$RUN-kill-$i" succeeded; done
once() { records unclip.results | jq -r .id | grep "^$RUN-kill-" | sort; }
all_there() { (($(once | wc -l) >= 20)); }
within 60 all_there || fail "only $(once | wc -l) results of 20 jobs"
expect "results of the killed coordinator's jobs" "$(once | wc -l), $(once | uniq | wc -l) of them distinct" \
  "20, 20 of them distinct"
