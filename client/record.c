/* SPDX-License-Identifier: Apache-2.0 */
/* One record, by a producer of its own. */
#include "client/record.h"

#include <string.h>

#include "common/kafka.h"
#include "common/protocol.h"

#define SEND_MS 10000

int record_send(const struct config *config, const char *id, int partition, const char *text,
                struct err *err)
{
    struct kafka_client *client = NULL;
    const struct kafka_output output = {
        .topic = topic_name(TOPIC_JOBS),
        .partition = partition,
        .key = id,
        .key_size = strlen(id),
        .value = text,
        .value_size = strlen(text),
    };
    int rc = kafka_client_open(&client, config, err);
    if (rc == 0)
        rc = kafka_client_send(client, &output, SEND_MS, err);
    kafka_client_close(client);
    return rc;
}
