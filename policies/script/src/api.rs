//! What scripts can call and read, besides the language itself.

use std::cell::Cell;

use sidetrack_policy::host::{self, Level};
use sidetrack_policy::{request, store};

use crate::js::{self, Arguments, Function, Name, Result, Value};
use crate::roster;

/// A function for scripts, by its name there.
#[derive(Debug)]
pub struct Native {
    name: &'static str,
    /// Where it is found.
    home: Home,
    length: usize,
    pub call: Function,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    Global,
    Math,
    Console,
    Store,
    /// A method of the request …
    Request,
    /// … or something about it that looks like a value.
    Getter,
}

/// All of them; QuickJS knows each by its place here.
pub static FUNCTIONS: &[Native] = &[
    native(Home::Global, "refuse", 2, refuse),
    native(Home::Global, "leastLoaded", 1, least_loaded),
    native(Home::Global, "byHash", 2, by_hash),
    native(Home::Global, "sessionOwner", 1, session_owner),
    native(Home::Global, "random", 1, random),
    native(Home::Global, "now", 0, now),
    native(Home::Global, "explain", 1, explain),
    native(Home::Global, "log", 1, |arguments| write(Level::Info, arguments)),
    native(Home::Math, "random", 0, |_| random(Arguments::NONE)),
    native(Home::Console, "error", 1, |arguments| write(Level::Error, arguments)),
    native(Home::Console, "warn", 1, |arguments| write(Level::Warn, arguments)),
    native(Home::Console, "info", 1, |arguments| write(Level::Info, arguments)),
    native(Home::Console, "log", 1, |arguments| write(Level::Info, arguments)),
    native(Home::Console, "debug", 1, |arguments| write(Level::Debug, arguments)),
    native(Home::Store, "get", 1, store_get),
    native(Home::Store, "set", 2, store_set),
    native(Home::Store, "delete", 1, store_delete),
    native(Home::Store, "add", 2, store_add),
    native(Home::Request, "query", 1, |arguments| found(request::query(&name(arguments)?))),
    native(Home::Request, "header", 1, |arguments| found(request::header(&name(arguments)?))),
    native(Home::Request, "cookie", 1, |arguments| found(policy_common::cookie(&name(arguments)?))),
    native(Home::Getter, "method", 0, |_| text(request::method)),
    native(Home::Getter, "path", 0, |_| text(request::path)),
    native(Home::Getter, "peer", 0, |_| inside().and_then(|()| found(request::peer()))),
    native(Home::Getter, "session", 0, |_| inside().and_then(|()| found(request::session()))),
    native(Home::Getter, "isUpgrade", 0, |_| inside().map(|()| request::is_upgrade().into())),
    native(Home::Getter, "attempt", 0, |_| inside().map(|()| request::attempt().into())),
];

const fn native(home: Home, name: &'static str, length: usize, call: Function) -> Native {
    Native { name, home, length, call }
}

thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });

/// Says whether there is a request now.
pub fn set_inside(inside: bool) {
    INSIDE.set(inside);
}

fn inside() -> Result<()> {
    if INSIDE.get() {
        Ok(())
    } else {
        Err(js::type_error("there is no request outside `balance` and `find`"))
    }
}

/// Puts everything in its place and returns the object for requests.
pub fn install() -> Result<Value> {
    let global = Value::global();
    let math = global.get_by("Math")?;
    let [console, store, request] = [Value::object()?, Value::object()?, Value::object()?];
    for (place, Native { name, home, length, .. }) in FUNCTIONS.iter().enumerate() {
        let owner = match home {
            Home::Global => &global,
            Home::Math => &math,
            Home::Console => &console,
            Home::Store => &store,
            Home::Request => &request,
            Home::Getter => {
                request.define_getter(name, place)?;
                continue;
            }
        };
        owner.define_method(name, js::function(name, *length, place)?)?;
    }
    global.define_method("console", console)?;
    global.define_method("store", store)?;
    request.freeze()?;
    Ok(request)
}

/// A string argument, of which there must be one.
fn name(arguments: Arguments<'_>) -> Result<String> {
    inside()?;
    key(arguments)
}

fn key(arguments: Arguments<'_>) -> Result<String> {
    let key = arguments.get(0);
    if key.is_string() {
        key.to_text()
    } else {
        Err(js::type_error("expected a string as the first argument"))
    }
}

fn text(text: fn() -> String) -> Result<Value> {
    inside()?;
    Value::text(&text())
}

/// What is absent is undefined.
fn found(text: Option<String>) -> Result<Value> {
    text.map_or(Ok(Value::UNDEFINED), |text| Value::text(&text))
}

fn refuse(arguments: Arguments<'_>) -> Result<Value> {
    let status = arguments.get(0).whole().filter(|status| (400..=599).contains(status));
    let Some(status) = status else {
        return Err(js::range_error("refuse: expected a status from 400 to 599"));
    };
    let refusal = Value::object()?;
    refusal.define(&Name::new("status"), status.into())?;
    let options = arguments.get(1);
    if options.is_nothing() {
        return Ok(refusal);
    }
    if !options.is_object() {
        return Err(js::type_error("refuse: expected an object such as { retryAfter: 5, text: 'later' }"));
    }
    for name in js::names(&options)? {
        let value = options.get_by(&name)?;
        match &*name {
            _ if value.is_nothing() => continue,
            "retryAfter" if value.number().is_none_or(|seconds| seconds.is_nan() || seconds < 0.0) => {
                return Err(js::type_error("refuse: expected `retryAfter` in seconds"));
            }
            "retryAfter" | "text" => refusal.define(&Name::new(&name), value)?,
            _ => {
                let unknown = format!("refuse: unknown option `{name}`: expected retryAfter, text");
                return Err(js::type_error(&unknown));
            }
        }
    }
    Ok(refusal)
}

fn least_loaded(arguments: Arguments<'_>) -> Result<Value> {
    roster::least_loaded(&arguments.get(0)).map(Option::unwrap_or_default)
}

fn by_hash(arguments: Arguments<'_>) -> Result<Value> {
    let text = arguments.get(1).to_text()?;
    roster::by_hash(&arguments.get(0), &text).map(Option::unwrap_or_default)
}

fn session_owner(arguments: Arguments<'_>) -> Result<Value> {
    Ok(host::session_owner(&key(arguments)?).and_then(roster::object).unwrap_or_default())
}

/// A fraction, or a whole number below the argument.
fn random(arguments: Arguments<'_>) -> Result<Value> {
    if arguments.len() == 0 {
        #[allow(clippy::cast_precision_loss, reason = "53 bits")]
        let fraction = (host::random_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        return Ok(fraction.into());
    }
    match arguments.get(0).whole() {
        Some(bound @ 1..) => {
            #[allow(clippy::cast_possible_truncation, reason = "below the bound")]
            let number = host::random_below(bound as usize) as u32;
            Ok(number.into())
        }
        _ => Err(js::range_error("random: expected nothing or a whole number above 0")),
    }
}

/// Milliseconds.
fn now(_: Arguments<'_>) -> Result<Value> {
    #[allow(clippy::cast_precision_loss, reason = "exact for 104 days")]
    let nanoseconds = host::now() as f64;
    Ok((nanoseconds / 1e6).into())
}

fn explain(arguments: Arguments<'_>) -> Result<Value> {
    host::explain(&line(arguments)?);
    Ok(Value::UNDEFINED)
}

fn write(level: Level, arguments: Arguments<'_>) -> Result<Value> {
    host::log(level, &line(arguments)?);
    Ok(Value::UNDEFINED)
}

/// The arguments in one line: strings and errors as they are, anything else as JSON.
fn line(arguments: Arguments<'_>) -> Result<String> {
    let mut line = String::new();
    for argument in arguments.iter() {
        if !line.is_empty() {
            line.push(' ');
        }
        let json = if argument.is_object() && !argument.is_error() { argument.to_json()? } else { None };
        match json {
            Some(json) => line.push_str(&json),
            None => line.push_str(&argument.to_text()?),
        }
    }
    Ok(line)
}

/// What `store.add` keeps has this length, and nothing else does.
const NUMBER: usize = 8;

fn store_get(arguments: Arguments<'_>) -> Result<Value> {
    let Some(bytes) = store::get(&key(arguments)?) else { return Ok(Value::UNDEFINED) };
    if let Ok(number) = <[u8; NUMBER]>::try_from(&*bytes) {
        #[allow(clippy::cast_precision_loss, reason = "the language has no other numbers")]
        let number = i64::from_le_bytes(number) as f64;
        return Ok(number.into());
    }
    match std::str::from_utf8(&bytes) {
        Ok(json) => Value::from_json(json, "store"),
        Err(_) => Err(js::type_error("store.get: expected JSON under that key, found other bytes")),
    }
}

fn store_set(arguments: Arguments<'_>) -> Result<Value> {
    let key = key(arguments)?;
    let Some(mut json) = arguments.get(1).to_json()? else {
        return Err(js::type_error("store.set: expected a value that JSON can hold"));
    };
    if json.len() == NUMBER {
        json.push(' ');
    }
    Ok(store::set(&key, json.as_bytes()).into())
}

fn store_delete(arguments: Arguments<'_>) -> Result<Value> {
    store::delete(&key(arguments)?);
    Ok(Value::UNDEFINED)
}

fn store_add(arguments: Arguments<'_>) -> Result<Value> {
    let key = key(arguments)?;
    let number = if arguments.len() < 2 { Some(1.0) } else { arguments.get(1).number() };
    match number {
        Some(number) if number.fract() == 0.0 => {
            #[allow(clippy::cast_possible_truncation, reason = "a whole number; the largest saturate")]
            let sum = store::add(&key, number as i64);
            #[allow(clippy::cast_precision_loss, reason = "the language has no other numbers")]
            let sum = sum as f64;
            Ok(sum.into())
        }
        _ => Err(js::type_error("store.add: expected a whole number as the second argument")),
    }
}
