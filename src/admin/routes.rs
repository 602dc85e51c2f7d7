//! Every path of the interface, in one table: the router and its description are made of it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::guard::Entrance;
use super::reply::{No, Outcome, Reply, parsed};
use super::server::Authority;
use super::{dashboard, description, follow, metrics, orders, policy, run, shadow, upgrade};
use crate::pool::Pool;

/// One path and method.
pub(super) struct Route {
    pub method: &'static str,
    /// As axum and OpenAPI write it.
    pub path: &'static str,
    pub about: &'static str,
    /// Names in the query, and what they mean.
    pub query: &'static [(&'static str, &'static str)],
    /// The request's body.
    pub asks: Option<MakeSchema>,
    pub says: Says,
    serve: Serve,
}

/// Writes a type down among the others.
pub(super) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// Makes the handler.
type Serve = fn() -> MethodRouter<Authority>;

/// What is answered when all is well.
#[derive(Clone, Copy)]
pub(super) enum Says {
    Json(MakeSchema),
    /// Something else, by its content type.
    Text(&'static str),
    /// Then nobody is there to answer.
    Nothing,
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    const fn get(path: &'static str, about: &'static str, says: Says, serve: Serve) -> Self {
        Self { method: "get", path, about, query: &[], asks: None, says, serve }
    }

    /// About one pool of several.
    const fn of_a_pool(self) -> Self {
        self.with_query(&[POOL])
    }

    const fn with_query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    const fn post(
        path: &'static str,
        about: &'static str,
        asks: Option<MakeSchema>,
        says: Says,
        serve: Serve,
    ) -> Self {
        Self { method: "post", path, about, query: &[], asks, says, serve }
    }
}

/// In the query of whatever is about one pool.
pub(super) const POOL: (&str, &str) = ("pool", "which pool; the only one or the default without it");

type At = State<Authority>;

/// The table.
pub(super) const ROUTES: &[Route] = &[
    Route::get(
        "/v1/status",
        "The run at a glance: addresses, workers, sessions, figures",
        Says::Json(of::<run::Status>),
        || get(async |State(authority): At| Reply(run::status(&authority))),
    ),
    Route::get(
        "/v1/workers",
        "Every worker: process, standing, load",
        Says::Json(of::<Vec<run::Worker>>),
        || get(workers),
    )
    .with_query(&[("pool", "only those of this pool")]),
    Route::post(
        "/v1/workers/scale",
        "More workers, or fewer",
        Some(of::<orders::Scale>),
        Says::Json(of::<orders::Sizes>),
        || post(scale),
    ),
    Route::post(
        "/v1/workers/restart",
        "New workers in all slots or in some, one after another; the status tells how far it has come",
        Some(of::<orders::Restart>),
        Says::Json(of::<run::RollingRestart>),
        || post(roll),
    ),
    Route::post(
        "/v1/workers/{slot}/drain",
        "Nothing new for a worker; it leaves when it has nothing left to do",
        Some(of::<run::Drain>),
        Says::Json(of::<Vec<run::Worker>>),
        || post(drain),
    ),
    Route::post(
        "/v1/workers/{slot}/restart",
        "Another worker in a slot; the one before leaves as when drained",
        Some(of::<run::Drain>),
        Says::Json(of::<Vec<run::Worker>>),
        || post(restart),
    ),
    Route::post(
        "/v1/workers/{slot}/undrain",
        "A worker takes part again; one that has left is started anew",
        None,
        Says::Json(of::<Vec<run::Worker>>),
        || post(undrain),
    ),
    Route::get(
        "/v1/sessions/{sid}",
        "Who has a session, and since when",
        Says::Json(of::<run::Session>),
        || get(session),
    ),
    Route::post(
        "/v1/reload",
        "The configuration is read again: the differences, or everything that is wrong",
        Some(of::<orders::Reload>),
        Says::Json(of::<orders::Changes>),
        || post(reload),
    ),
    Route::get("/v1/log", "The filter of the log", Says::Json(of::<orders::Logged>), || get(log)),
    Route::post(
        "/v1/log",
        "Another filter of the log",
        Some(of::<orders::Log>),
        Says::Json(of::<orders::Logged>),
        || post(set_log),
    ),
    Route::post(
        "/v1/upgrade",
        "Another program goes on here; answered only when it does not",
        Some(of::<upgrade::Exchange>),
        Says::Nothing,
        || post(exchange),
    ),
    Route::get(
        "/metrics",
        "Figures in the text format that Prometheus reads",
        Says::Text(metrics::CONTENT_TYPE),
        || get(scrape),
    ),
    Route::get(
        "/v1/policy",
        "The chain: each link's version, state, counters and history; the shadow",
        Says::Json(of::<policy::Chains>),
        || get(chains),
    )
    .of_a_pool(),
    Route::post(
        "/v1/policy/set",
        "Another version for a link",
        Some(of::<policy::Set>),
        Says::Json(of::<policy::Told>),
        || post(set),
    )
    .of_a_pool(),
    Route::post(
        "/v1/policy/rollback",
        "The version before",
        Some(of::<policy::Rollback>),
        Says::Json(of::<policy::Told>),
        || post(rollback),
    )
    .of_a_pool(),
    Route::post(
        "/v1/policy/explain",
        "What would be decided now for a made-up request, and why",
        Some(of::<policy::Explain>),
        Says::Json(of::<policy::Explained>),
        || post(explain),
    )
    .of_a_pool(),
    Route::get(
        "/v1/policy/shadow",
        "The shadow and how it does; null when there is none",
        Says::Json(of::<Option<shadow::Told>>),
        || get(async |Chosen(pool): Chosen| Reply(shadow::status(&pool).await)),
    )
    .of_a_pool(),
    Route::post(
        "/v1/policy/shadow",
        "Another shadow",
        Some(of::<shadow::Set>),
        Says::Json(of::<Option<shadow::Told>>),
        || post(set_shadow),
    )
    .of_a_pool(),
    Route::post("/v1/policy/shadow/off", "No shadow any more", None, Says::Json(of::<()>), || {
        post(shadow_off)
    })
    .of_a_pool(),
    Route {
        query: follow::QUERY,
        ..Route::get(
            "/v1/decisions",
            "One line for each decision from now on, and for what recordings hold besides; it ends when nobody reads",
            Says::Text(follow::CONTENT_TYPE),
            || get(follow::follow),
        )
    },
    Route::get("/v1/openapi.json", "This description", Says::Text("application/json"), || {
        get(async || ([(header::CONTENT_TYPE, "application/json")], description::text()))
    }),
];

/// All of them, and the page.
pub(super) fn router() -> Router<Authority> {
    let routes = Router::new().merge(dashboard::router());
    ROUTES
        .iter()
        .fold(routes, |routes, route| routes.route(route.path, (route.serve)()))
        .fallback(async || No::new(StatusCode::NOT_FOUND, "there is no such path"))
        .method_not_allowed_fallback(async || {
            No::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method: see /v1/openapi.json")
        })
}

/// The pool a request is about: `?pool=NAME`, or the only one or the default.
#[derive(Debug)]
pub(super) struct Chosen(pub(super) Arc<Pool>);

impl FromRequestParts<Authority> for Chosen {
    type Rejection = No;

    async fn from_request_parts(parts: &mut Parts, authority: &Authority) -> Result<Self, No> {
        let name = named_pool(parts.uri.query());
        let pool = authority.pools.named(name.as_deref());
        pool.map(|pool| Self(Arc::clone(pool))).map_err(|error| No::new(StatusCode::NOT_FOUND, error))
    }
}

fn named_pool(query: Option<&str>) -> Option<String> {
    let name = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).find(|(key, _)| key == "pool");
    name.map(|(_, name)| name.into_owned())
}

/// Of the pool that is named, or of all of them.
async fn workers(State(authority): At, RawQuery(query): RawQuery) -> Outcome<Vec<run::Worker>> {
    let pools = &authority.pools;
    let Some(name) = named_pool(query.as_deref()) else { return Ok(Reply(run::workers(pools))) };
    let pool = pools.named(Some(&name)).map_err(|error| No::new(StatusCode::NOT_FOUND, error))?;
    Ok(Reply(run::workers_of(pools, pool)))
}

async fn drain(State(authority): At, Path(slot): Path<String>, body: Bytes) -> Outcome<Vec<run::Worker>> {
    Ok(Reply(run::drain(&authority, &slot, &parsed(&body)?)?))
}

async fn restart(State(authority): At, Path(slot): Path<String>, body: Bytes) -> Outcome<Vec<run::Worker>> {
    Ok(Reply(run::restart(&authority, &slot, &parsed(&body)?)?))
}

async fn undrain(State(authority): At, Path(slot): Path<String>) -> Outcome<Vec<run::Worker>> {
    Ok(Reply(run::undrain(&authority, &slot)?))
}

async fn scale(State(authority): At, body: Bytes) -> Outcome<orders::Sizes> {
    Ok(Reply(orders::scale(&authority, parsed(&body)?).await?))
}

async fn roll(State(authority): At, body: Bytes) -> Outcome<run::RollingRestart> {
    Ok(Reply(orders::restart(&authority, parsed(&body)?).await?))
}

async fn reload(State(authority): At, body: Bytes) -> Outcome<orders::Changes> {
    Ok(Reply(orders::reload(&authority, &parsed(&body)?).await?))
}

async fn log(State(authority): At) -> Outcome<orders::Logged> {
    Ok(Reply(orders::log(&authority, None).await?))
}

async fn set_log(State(authority): At, body: Bytes) -> Outcome<orders::Logged> {
    Ok(Reply(orders::log(&authority, Some(parsed(&body)?)).await?))
}

async fn exchange(
    State(authority): At,
    Extension(entrance): Extension<Entrance>,
    body: Bytes,
) -> Result<Infallible, No> {
    upgrade::order(&authority, entrance, parsed(&body)?).await
}

async fn session(State(authority): At, Path(sid): Path<String>) -> Outcome<run::Session> {
    run::session(&authority, &sid).map(Reply).map_err(|error| No::new(StatusCode::NOT_FOUND, error))
}

async fn scrape(State(authority): At) -> Response {
    let mut shadows = Vec::new();
    for pool in authority.pools.iter() {
        let shadow = shadow::look(pool).await;
        shadows.extend(shadow.map(|shadow| (metrics::labels(&authority.pools, pool), shadow)));
    }
    match metrics::scrape(&authority, shadows) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => No::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The chain of the pool that is named, or of all of them.
async fn chains(State(authority): At, RawQuery(query): RawQuery) -> Outcome<policy::Chains> {
    let one = async |pool: &Pool| policy::status(pool, shadow::status(pool).await);
    let (pools, name) = (&authority.pools, named_pool(query.as_deref()));
    if name.is_some() || !pools.several() {
        let pool = pools.named(name.as_deref()).map_err(|error| No::new(StatusCode::NOT_FOUND, error))?;
        return Ok(Reply(policy::Chains::One(Box::new(one(pool).await))));
    }
    let mut all = Vec::new();
    for pool in pools.iter() {
        let mut status = one(pool).await;
        status.pool = run::named(pools, pool);
        all.push(status);
    }
    Ok(Reply(policy::Chains::All { pools: all }))
}

async fn set(Chosen(pool): Chosen, body: Bytes) -> Outcome<policy::Told> {
    let order = parsed(&body)?;
    Ok(Reply(aside(move || policy::set(&pool, &order)).await?))
}

async fn rollback(Chosen(pool): Chosen, body: Bytes) -> Outcome<policy::Told> {
    Ok(Reply(policy::rollback(&pool, &parsed(&body)?)?))
}

/// Of the pool that is named, else of the one that such a request is for.
async fn explain(State(authority): At, RawQuery(query): RawQuery, body: Bytes) -> Outcome<policy::Explained> {
    let order: policy::Explain = parsed(&body)?;
    let head = order.head()?;
    let pools = &authority.pools;
    let pool = match named_pool(query.as_deref()) {
        Some(name) => pools.named(Some(&name))?,
        None => pools.meant(&head).ok_or_else(|| "no pool is for this host and path: 404".to_owned())?,
    };
    let mut explained = policy::explain(pool, &order, head);
    explained.pool = run::named(pools, pool);
    Ok(Reply(explained))
}

async fn set_shadow(Chosen(pool): Chosen, body: Bytes) -> Outcome<Option<shadow::Told>> {
    let order = parsed(&body)?;
    let asked = Arc::clone(&pool);
    aside(move || shadow::set(&asked, &order)).await?;
    Ok(Reply(shadow::status(&pool).await))
}

async fn shadow_off(Chosen(pool): Chosen) -> Outcome<()> {
    Ok(Reply(aside(move || shadow::off(&pool)).await?))
}

/// Compiling takes its time, and connections must not wait for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
