#!/usr/bin/env bash
# Workers are killed in the middle of their batches: every picture is made, and reported, exactly once.
# A rank that is killed takes its worker along, and the next one makes the same picture.
source "$(dirname "$0")/lib.sh"
use_cluster
readonly JOBS=20
readonly KILLED=(decoder-0 prior-0 text-encode-0)
# of the workers started below: it is not the tasks that kill them, and there are batches enough to die in
export UNCLIP_DEATH_LIMIT=100 UNCLIP_BATCH=2
cluster restart "${KILLED[@]}"

# reports: of this run's pictures, one "job stage" a line
reports() {
  records unclip.events | jq -r --arg run "$RUN-" 'select(.job | startswith($run)) | "\(.job) \(.stage)"'
}
decoded() { (($(reports | grep -c ' decoder$') >= $1)); }

for ((i = 0; i < JOBS; i++)); do
  job "$RUN-$i" "a red heart $i" '"steps": {"prior": 5, "decoder": 20}'
done
for ((round = 1; round <= 4; round++)); do
  within 120 decoded $((round * 3)) || fail "the decoder stopped working in round $round"
  names=(decoder-0 prior-0)
  ((round % 2)) || names+=(text-encode-0)
  kill_now "${names[@]}"
  cluster start "${KILLED[@]}"
done
for ((i = 0; i < JOBS; i++)); do await_state "$RUN-$i" succeeded; done
expect "reports" "$(reports | wc -l)" $((JOBS * 3))
expect "different reports" "$(reports | sort -u | wc -l)" $((JOBS * 3))

# the second rank of upsampler-2 dies in the middle of a picture
ranks() { pgrep -f "unclip-worker upsampler-2 .*--artifacts $UNCLIP_HOME/" | xargs -r ps -o pid=,comm= -p | grep -v -e bash -e mpirun; }
computing() { [[ $(field "$RUN-mpi" stage) == upsampler-2 ]]; }
produce "$RUN-mpi" <<<'{"version":1,"type":"text-to-image","prompt":"a red heart","n":2,"seed":1,"size":1024,
  "steps":{"prior":2,"decoder":2,"upsampler-1":2,"upsampler-2":8}}'
within 120 computing || fail "upsampler-2 does not compute"
ranks | tail -n 1 | awk '{print $1}' | xargs kill -9
gone() { [[ -z $(ranks) ]]; }
within 60 gone || fail "the other rank of upsampler-2 lives on: $(ranks)"
within 60 dead "$(pid_of upsampler-2-0)" || fail "upsampler-2-0 lives on without its ranks"
cluster start upsampler-2-0
await_state "$RUN-mpi" succeeded 400
expect images_done "$(field "$RUN-mpi" images_done)" 2
unset UNCLIP_DEATH_LIMIT UNCLIP_BATCH
cluster restart "${KILLED[@]}" upsampler-2-0
