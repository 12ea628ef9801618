#!/usr/bin/env bash
# common/kafka.c on the real broker: copiers are killed, started again and stopped beyond their session,
# and every record is in the output exactly once.
source "$(dirname "$0")/lib.sh"
use_cluster
"$UNCLIP_BIN/integration.kafka_exactly_once" "$KAFKA"
