/* SPDX-License-Identifier: Apache-2.0 */
/* unclip topics: the topics of a cluster, from the table in schemas/tables.h. */
#include <jansson.h>

#include "client/command.h"
#include "common/protocol.h"

#define TOPICS_MAX (TOPIC_COUNT + STAGE_COUNT * CLASS_COUNT)
#define CREATE_MS  60000

struct values {
    bool create, json;
};

static size_t specs_make(struct kafka_topic_spec specs[TOPICS_MAX], const struct config *config)
{
    size_t count = 0;
    const struct kafka_topic_spec common = {.partitions = (int)config->partitions,
                                            .replication = (int)config->replication};

    for (enum topic topic = 0; topic < TOPIC_COUNT; topic++) {
        specs[count] = common;
        specs[count].name = topic_name(topic);
        specs[count++].compacted = topic_compacted(topic);
    }
    for (int i = 0; i < STAGE_COUNT * CLASS_COUNT; i++) {
        specs[count] = common;
        specs[count++].name =
            topic_tasks((enum stage)(i / CLASS_COUNT), (enum task_class)(i % CLASS_COUNT));
    }
    return count;
}

static void print_table(const struct kafka_topic_spec *specs, size_t count)
{
    printf("%-36s %10s %11s  %s\n", "topic", "partitions", "replication", "kept");
    for (size_t i = 0; i < count; i++)
        printf("%-36s %10d %11d  %s\n", specs[i].name, specs[i].partitions, specs[i].replication,
               specs[i].compacted ? "compacted" : "by time");
}

static void print_json(const struct kafka_topic_spec *specs, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:i, s:i, s:b}", "name", specs[i].name, "partitions",
                                        specs[i].partitions, "replication", specs[i].replication,
                                        "compacted", (int)specs[i].compacted));
    json_dumpf(list, stdout, JSON_INDENT(2));
    puts("");
    json_decref(list);
}

static int create(const struct config *config, const struct kafka_topic_spec *specs, size_t count,
                  struct err *err)
{
    struct kafka_client *client = NULL;
    int rc = kafka_client_open(&client, config, err);
    if (rc == 0)
        rc = kafka_client_create_topics(client, specs, count, CREATE_MS, err);
    kafka_client_close(client);
    return rc;
}

static enum exit_code run(const struct invocation *invocation)
{
    const struct values *values = invocation->values;
    struct kafka_topic_spec specs[TOPICS_MAX];
    size_t count = specs_make(specs, invocation->config);
    struct err err;

    if (values->create && create(invocation->config, specs, count, &err) < 0)
        return complain_of(invocation, &err);
    if (values->json)
        print_json(specs, count);
    else
        print_table(specs, count);
    return EXIT_OK;
}

#define AT(member) offsetof(struct values, member)

static const struct option options[] = {
    {"create", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(create),
     "make those that are missing; check the others"},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(json), "as an array"},
    {0},
};
static const struct option_group groups[] = {{"Topics", options}, {0}};

const struct command topics_command = {
    .name = "topics",
    .operands = "",
    .summary = "list the topics that a cluster needs, or make them",
    .groups = groups,
    .values_size = sizeof(struct values),
    .settings = {"partitions", "replication", "kafka"},
    .run = run,
};
