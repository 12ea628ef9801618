/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records against their JSON Schemas. valijson decides; its first failure (a path and a phrase) is
 * turned into a sentence for the person who wrote the record, with the schema's own `description`
 * where a pattern says nothing. jansson reads the bytes first, because it is what the rest of the
 * code reads them with: only what both accept is valid.
 *
 * Patterns run in std::regex, whose recursion grows with what it matches: so every repetition in a
 * pattern of ours is bounded (test_schema.c checks that).
 */
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <rapidjson/document.h>
#include <rapidjson/pointer.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <valijson/adapters/rapidjson_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

extern "C" {
#include "common/err.h"
#include "common/json.h"
#include "common/utf8.h"
}
#include "common/schema.h"

namespace
{

using Value = rapidjson::Value;
using Path = std::vector<std::string>; /* member names and array indices, from the root */

struct Compiled {
    rapidjson::Document document; /* the schema's text, for sentences */
    valijson::Schema schema;
};

/* Not kParseFullPrecisionFlag: with it 0e45 is undefined behaviour in rapidjson, and no longer 0.
 */
constexpr unsigned parse_flags =
    rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag;

const struct {
    const char *name, *text;
} sources[] = {
#define EMBED(schema_name, text) {schema_name, text},
#include "schemas_embedded.h"
#undef EMBED
};

constexpr char common_name[] = "common"; /* the schema that the others refer to */
constexpr char common_place[] = "common.schema.json#";

void parse(rapidjson::Document &document, const std::string &text)
{
    document.Parse<parse_flags>(text.c_str());
    BUG_ON(document.HasParseError());
}

/* References to the common definitions become references within the document, which gets them. */
std::string make_local(std::string text)
{
    for (size_t at; (at = text.find(common_place)) != std::string::npos;)
        text.replace(at, sizeof common_place - 1, "#");
    return text;
}

void add_definitions(rapidjson::Document &document, const rapidjson::Document &common)
{
    auto &allocator = document.GetAllocator();
    if (!document.HasMember("definitions"))
        document.AddMember("definitions", Value(rapidjson::kObjectType), allocator);
    for (const auto &member : common["definitions"].GetObject()) {
        BUG_ON(document["definitions"].HasMember(member.name));
        document["definitions"].AddMember(Value(member.name, allocator),
                                          Value(member.value, allocator), allocator);
    }
}

std::unique_ptr<Compiled> compile(const std::string &text, const rapidjson::Document &common)
{
    auto compiled = std::make_unique<Compiled>();
    parse(compiled->document, make_local(text));
    add_definitions(compiled->document, common);
    valijson::SchemaParser parser;
    parser.populateSchema(valijson::adapters::RapidJsonAdapter(compiled->document),
                          compiled->schema);
    return compiled;
}

/* All schemas, compiled once and kept for the life of the process. */
const Compiled *find_schema(const char *name)
{
    static const auto *const all = [] {
        auto *made = new std::map<std::string, std::unique_ptr<Compiled>>;
        rapidjson::Document common;
        for (const auto &source : sources)
            if (std::strcmp(source.name, common_name) == 0)
                parse(common, make_local(source.text));
        for (const auto &source : sources)
            if (std::strcmp(source.name, common_name) != 0)
                (*made)[source.name] = compile(source.text, common);
        return made;
    }();
    auto found = all->find(name);
    BUG_ON(found == all->end());
    return found->second.get();
}

/* valijson writes "<root>", "[name]", "[3]". */
Path path_of(const valijson::ValidationResults::Error &error)
{
    Path path;
    for (size_t i = 1; i < error.context.size(); i++)
        path.push_back(error.context[i].substr(1, error.context[i].size() - 2));
    return path;
}

/* Cuts a text to what fits in a message. */
std::string shorten(const std::string &text)
{
    constexpr size_t limit = 60;
    if (text.size() <= limit)
        return text;
    size_t end = limit;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
        end--;
    return text.substr(0, end) + "…";
}

/* RFC 6901, quoted: '/steps/prior'. */
std::string pointer(const Path &path)
{
    std::string text;
    for (const auto &part : path) {
        text += '/';
        for (char c : part)
            text += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
    }
    return "'" + shorten(text) + "'";
}

std::string subject(const Path &path)
{
    return path.empty() ? "the record" : pointer(path);
}

const Value *member(const Value &object, const char *name)
{
    if (!object.IsObject())
        return nullptr;
    auto found = object.FindMember(name);
    return found == object.MemberEnd() ? nullptr : &found->value;
}

const Value *follow(const Value &record, const Path &path)
{
    const Value *at = &record;
    for (const auto &part : path) {
        if (at->IsArray())
            at = &(*at)[static_cast<rapidjson::SizeType>(std::stoul(part))];
        else if (!(at = member(*at, part.c_str())))
            return nullptr;
    }
    return at;
}

const Value *resolve(const rapidjson::Document &schema, const Value *node)
{
    const Value *reference = node ? member(*node, "$ref") : nullptr;
    if (!reference)
        return node;
    return rapidjson::Pointer(reference->GetString()).Get(schema);
}

/* The schema's node that governs the value at `path`; NULL where it is not on the straight way. */
const Value *governing(const rapidjson::Document &schema, const Path &path)
{
    const Value *node = &schema;
    for (const auto &part : path) {
        const Value *properties = member(*node, "properties");
        const Value *next = properties ? member(*properties, part.c_str()) : nullptr;
        if (!next)
            next = member(*node, properties ? "additionalProperties" : "items");
        if (!(node = resolve(schema, next)))
            return nullptr;
    }
    return node;
}

std::string show(const Value &value)
{
    rapidjson::StringBuffer buffer;
    rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
    value.Accept(writer);
    std::string text = shorten(buffer.GetString());
    if (!value.IsString())
        return text;
    return "'" + shorten(value.GetString()) + "'";
}

std::string show_list(const Value &array)
{
    std::string text;
    for (auto it = array.Begin(); it != array.End(); ++it) {
        if (it != array.Begin())
            text += it + 1 == array.End() ? " or " : ", ";
        text += show(*it);
    }
    return text;
}

std::string with_article(const std::string &type)
{
    if (type == "null")
        return type;
    return (std::strchr("aeio", type[0]) ? "an " : "a ") + type;
}

const char *type_of(const Value &value)
{
    if (value.IsNumber())
        return value.IsDouble() ? "number" : "integer";
    return value.IsObject()   ? "object"
           : value.IsArray()  ? "array"
           : value.IsString() ? "string"
           : value.IsBool()   ? "boolean"
                              : "null";
}

size_t characters(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += (static_cast<unsigned char>(*text) & 0xc0) != 0x80;
    return count;
}

/* What a sentence is made from. `keyword` is the schema's value of the keyword that failed. */
struct Failure {
    const std::string &who;
    const Value &value;
    const Value &node;
    const Value &keyword;
};

std::string say_type(const Failure &f)
{
    std::string wanted;
    if (f.keyword.IsString())
        wanted = with_article(f.keyword.GetString());
    else
        for (auto it = f.keyword.Begin(); it != f.keyword.End(); ++it)
            wanted += (wanted.empty() ? "" : " or ") + with_article(it->GetString());
    std::string got = f.value.IsNumber() ? show(f.value) : with_article(type_of(f.value));
    return f.who + " must be " + wanted + ", not " + got;
}

std::string say_const(const Failure &f)
{
    return f.who + " is " + show(f.value) + ", it must be " + show(f.keyword);
}

std::string say_enum(const Failure &f)
{
    return f.who + " is " + show(f.value) + ", it must be " + show_list(f.keyword);
}

std::string say_maximum(const Failure &f)
{
    return f.who + " is " + show(f.value) + ", at most " + show(f.keyword) + " is allowed";
}

std::string say_minimum(const Failure &f)
{
    return f.who + " is " + show(f.value) + ", at least " + show(f.keyword) + " is needed";
}

std::string say_max_length(const Failure &f)
{
    return f.who + " has " + std::to_string(characters(f.value.GetString())) +
           " characters, at most " + show(f.keyword) + " are allowed";
}

std::string say_min_length(const Failure &f)
{
    return f.who + " is empty";
}

std::string say_max_items(const Failure &f)
{
    return f.who + " has " + std::to_string(f.value.Size()) + " items, at most " + show(f.keyword) +
           " are allowed";
}

std::string say_min_items(const Failure &f)
{
    return f.who + " is empty";
}

std::string say_pattern(const Failure &f)
{
    const Value *meaning = member(f.node, "description");
    return f.who + " is " + show(f.value) + ", it must be " +
           (meaning ? meaning->GetString() : "as the pattern " + show(f.keyword));
}

/* valijson's phrases, by which it tells what failed, and our sentences. */
const struct Sentence {
    const char *phrase, *keyword;
    std::string (*say)(const Failure &);
} sentences[] = {
    {"Value type not permitted", "type", say_type},
    {"Failed to match expected value set by 'const'", "const", say_const},
    {"Failed to match against any enum", "enum", say_enum},
    {"Target value and comparison value are not equal", "enum", say_enum},
    {"Expected number less than or equal", "maximum", say_maximum},
    {"Expected number greater than or equal", "minimum", say_minimum},
    {"String should be no more than", "maxLength", say_max_length},
    {"String should be no fewer than", "minLength", say_min_length},
    {"Array should contain no more than", "maxItems", say_max_items},
    {"Array should contain no fewer than", "minItems", say_min_items},
    {"Failed to match regex", "pattern", say_pattern},
};

/* The name in "…PREFIX'name'." */
std::string quoted_name(const std::string &phrase, const char *prefix)
{
    size_t start = phrase.find(prefix) + std::strlen(prefix);
    return phrase.substr(start, phrase.size() - start - 2);
}

std::string say_missing(const Path &path, const std::string &name)
{
    return path.empty() ? "the field '" + name + "' is missing"
                        : pointer(path) + " lacks the field '" + name + "'";
}

std::string say_unknown(const Value *node, Path path, const std::string &name)
{
    path.push_back(name);
    std::string text = "unknown field " + pointer(path);
    const Value *known = node ? member(*node, "properties") : nullptr;
    if (!known)
        return text;
    const char *separator = ", known are ";
    for (auto it = known->MemberBegin(); it != known->MemberEnd(); ++it) {
        text += separator + std::string(it->name.GetString());
        separator = ", ";
    }
    return text;
}

std::string explain(const rapidjson::Document &schema, const rapidjson::Document &record,
                    const valijson::ValidationResults::Error &error)
{
    static const char missing[] = "Missing required property '";
    static const char unknown[] = "constraints: '";
    const Path path = path_of(error);
    const std::string &phrase = error.description, who = subject(path);
    const Value *value = follow(record, path), *node = governing(schema, path);
    if (phrase.rfind(missing, 0) == 0)
        return say_missing(path, quoted_name(phrase, missing));
    if (phrase.rfind("Object contains a property", 0) == 0)
        return say_unknown(node, path, quoted_name(phrase, unknown));
    if (path == Path{"version"} && value && value->IsInt64())
        return "the record's version is " + show(*value) + ", this unclip reads version 1";
    for (const auto &sentence : sentences) {
        const Value *keyword = node ? member(*node, sentence.keyword) : nullptr;
        if (value && keyword && phrase.rfind(sentence.phrase, 0) == 0)
            return sentence.say({who, *value, *node, *keyword});
    }
    return who + " is not valid: " + phrase;
}

/* The first failure; but a wrong version explains all others. */
const valijson::ValidationResults::Error &choose(const valijson::ValidationResults &results)
{
    for (const auto &error : results)
        if (path_of(error) == Path{"version"})
            return error;
    return *results.begin();
}

/* Whether it is the record's version that is wrong, and higher than ours. */
bool newer(const Value &record, const Path &path)
{
    const Value *value = path == Path{"version"} ? follow(record, path) : nullptr;
    return value && value->IsInt64() && value->GetInt64() > 1;
}

/* Nesting of objects and arrays, without trusting that the bytes are JSON. */
size_t depth_of(const char *json, size_t size)
{
    size_t depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = json[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '['))
            deepest = ++depth > deepest ? depth : deepest;
        else if (!in_string && (c == '}' || c == ']') && depth > 0)
            depth--;
    }
    return deepest;
}

int check_limits(const char *json, size_t size, struct err *err)
{
    if (size > SCHEMA_RECORD_MAX)
        return err_set(err, ERR_TOO_LARGE, "the record has %zu bytes, at most %u are allowed", size,
                       SCHEMA_RECORD_MAX);
    if (depth_of(json, size) > SCHEMA_DEPTH_MAX)
        return err_set(err, ERR_TOO_LARGE, "the record is nested more than %d levels deep",
                       SCHEMA_DEPTH_MAX);
    return 0;
}

int validate(const Compiled *compiled, const char *json, size_t size, struct err *err)
{
    rapidjson::Document record;
    record.Parse<parse_flags>(json, size);
    if (record.HasParseError())
        return err_set(err, ERR_INVALID_JSON, "not JSON at byte %zu", record.GetErrorOffset());
    /* keeps compiled patterns, which cost more than all the rest */
    thread_local valijson::Validator validator;
    valijson::ValidationResults results;
    if (validator.validate(compiled->schema, valijson::adapters::RapidJsonAdapter(record),
                           &results))
        return 0;
    const auto &error = choose(results);
    std::string text = explain(compiled->document, record, error);
    return err_set(err, newer(record, path_of(error)) ? ERR_UNSUPPORTED : ERR_INVALID_JOB, "%s",
                   text.c_str());
}

} // namespace

int schema_validate(const char *name, const char *json, size_t size, struct err *err)
{
    const Compiled *compiled = find_schema(name);
    int result = check_limits(json, size, err);
    if (result != 0)
        return result;
    json_t *parsed;
    if ((result = jsonx_parse(&parsed, json, size, err)) != 0)
        return result;
    json_decref(parsed);
    try {
        return validate(compiled, json, size, err);
    } catch (const std::exception &e) {
        return err_set(err, ERR_INTERNAL, "cannot validate by the schema '%s': %s", name, e.what());
    }
}
