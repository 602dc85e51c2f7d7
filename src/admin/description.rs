//! The interface described as OpenAPI 3.1, from the table of routes and the types they speak.

use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::reply::Failure;
use super::routes::{ROUTES, Route, Says};

/// Where the types of requests and replies are, in the description.
const TYPES: &str = "/components/schemas";

/// The description, as it is served and checked in.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", describe()));
    &TEXT
}

fn describe() -> Value {
    let settings =
        || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = TYPES.into());
    // A reply has all of its fields; of a request, those that have a default may be missing.
    let mut asked = settings().for_deserialize().into_generator();
    let mut said = settings().for_serialize().into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(route, &mut asked, &mut said);
    }
    let mut types = said.take_definitions(true);
    for (name, request) in asked.take_definitions(true) {
        let reply = types.insert(name, request);
        debug_assert!(reply.is_none(), "a request and a reply have the same name: {reply:?}");
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sidetrack's admin interface",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP on a Unix socket, and over TCP where admin-listen says so. Paths begin with a version; \
                a later version of the program may add fields to replies and takes none away.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": types,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of admin-token-file; only over TCP, and only where one is set.",
                },
            },
        },
    })
}

fn operation(route: &Route, asked: &mut SchemaGenerator, said: &mut SchemaGenerator) -> Value {
    let content = match route.says {
        Says::Json(schema) => Some(json!({ "application/json": { "schema": schema(said) } })),
        Says::Text(kind) => Some(json!({ kind: {} })),
        Says::Nothing => None,
    };
    let failure = said.subschema_for::<Failure>();
    let mut operation = json!({
        "summary": route.about,
        "responses": {
            "default": {
                "description": "It cannot be done, or not by this client",
                "content": { "application/json": { "schema": failure } },
            },
        },
    });
    if let Some(content) = content {
        operation["responses"]["200"] = json!({ "description": "It is so, or was done", "content": content });
    }
    let in_path =
        route.path.split(['{', '}']).skip(1).step_by(2).map(
            |name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        );
    let in_query = route.query.iter().map(|(name, about)| {
        json!({ "name": name, "in": "query", "description": about, "schema": { "type": "string" } })
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = route.asks {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": schema(asked) } } });
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

    #[test]
    fn the_description_that_is_checked_in_is_this_one() {
        let kept = std::fs::read_to_string(FILE).unwrap_or_default();
        assert_eq!(
            kept,
            text(),
            "docs/openapi.json is not up to date: cargo test --lib -- --ignored --exact admin::description::tests::refresh"
        );
    }

    #[test]
    #[ignore = "writes docs/openapi.json"]
    fn refresh() {
        std::fs::write(FILE, text()).unwrap();
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            if let Some(reference) = value["$ref"].as_str() {
                found.push(reference.to_owned());
            }
            let items = value.as_array().into_iter().flatten();
            items
                .chain(value.as_object().into_iter().flatten().map(|(_, value)| value))
                .for_each(|value| references(value, found));
        }
        let value = describe();
        let types = value["components"]["schemas"].as_object().unwrap();
        // Two of a name would be told apart by numbers.
        assert!(!types.keys().any(|name| name.ends_with(|last: char| last.is_ascii_digit())), "{types:?}");
        let mut found = Vec::new();
        references(&value, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            assert!(value.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        for route in ROUTES {
            let operation = &value["paths"][route.path][route.method];
            assert!(operation["summary"].is_string(), "{}", route.path);
        }
    }
}
