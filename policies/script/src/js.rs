//! QuickJS as far as it is needed here: values that free themselves, errors with a place, calls.
//!
//! There is one runtime with one context, made once and never ended, and one thread. All of the
//! crate's `unsafe` is in this file.

#![allow(unsafe_code, reason = "QuickJS is a C library")]

use std::ffi::{CString, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed};

use rquickjs_sys as q;

use crate::api::FUNCTIONS;

static CONTEXT: AtomicPtr<q::JSContext> = AtomicPtr::new(ptr::null_mut());
static RUNTIME: AtomicPtr<q::JSRuntime> = AtomicPtr::new(ptr::null_mut());
/// How often QuickJS may ask whether to go on, in the present call.
static PATIENCE: AtomicU32 = AtomicU32::new(u32::MAX);

/// At this size garbage is looked for at the latest. After a look QuickJS waits until the heap has grown
/// by half, which may be more than it may ever grow.
static FULL: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The stack that scripts may use: what makes QuickJS end a recursion, with its place, before the host does.
const STACK: usize = 128 << 10;

/// A JavaScript exception is waiting in the context; see [`caught`].
#[derive(Debug)]
pub struct Thrown;

pub type Result<T> = std::result::Result<T, Thrown>;

/// An owned JavaScript value.
#[derive(Debug)]
pub struct Value(q::JSValue);

/// The name of a property, looked up once.
#[derive(Debug)]
pub struct Name(q::JSAtom);

/// What a function is called with.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'a>(&'a [q::JSValue]);

/// A function of this crate that scripts call.
pub type Function = fn(Arguments<'_>) -> Result<Value>;

/// What a script threw.
#[derive(Debug)]
pub struct Exception {
    /// Such as `TypeError: x is not a function`.
    pub text: String,
    /// The stack as QuickJS writes it; empty when what was thrown is no error.
    pub stack: String,
}

/// Starts the engine. `memory` is what it may allocate.
pub fn start(memory: usize) {
    FULL.store(memory / 4 * 3, Relaxed);
    // SAFETY: the functions are called in the order that quickjs.h asks for, with what they returned.
    unsafe {
        let runtime = q::JS_NewRuntime2(&allocator::FUNCTIONS, ptr::null_mut());
        q::JS_SetMemoryLimit(runtime, memory as _);
        q::JS_SetMaxStackSize(runtime, STACK as _);
        q::JS_SetInterruptHandler(runtime, Some(asked_to_go_on), ptr::null_mut());
        RUNTIME.store(runtime, Relaxed);
        let context = q::JS_NewContextRaw(runtime);
        CONTEXT.store(context, Relaxed);
        q::JS_AddIntrinsicBaseObjects(context);
        q::JS_AddIntrinsicDate(context);
        q::JS_AddIntrinsicEval(context);
        q::JS_AddIntrinsicRegExp(context);
        q::JS_AddIntrinsicJSON(context);
        q::JS_AddIntrinsicProxy(context);
        q::JS_AddIntrinsicMapSet(context);
        q::JS_AddIntrinsicTypedArrays(context);
        q::JS_AddIntrinsicPromise(context);
        q::JS_AddIntrinsicWeakRef(context);
    }
}

/// The allocator that QuickJS has anyway, with the sizes that it needs for its memory limit and to know
/// when to look for garbage: by itself it believes that this platform cannot tell them.
mod allocator {
    use super::{c_void, q};

    unsafe extern "C" {
        safe fn malloc(size: usize) -> *mut c_void;
        safe fn calloc(count: usize, size: usize) -> *mut c_void;
        fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
        fn free(pointer: *mut c_void);
        fn malloc_usable_size(pointer: *const c_void) -> usize;
    }

    pub static FUNCTIONS: q::JSMallocFunctions = q::JSMallocFunctions {
        js_calloc: Some(new_zeroed),
        js_malloc: Some(new),
        js_free: Some(end),
        js_realloc: Some(resize),
        js_malloc_usable_size: Some(size),
    };

    unsafe extern "C" fn new_zeroed(_: *mut c_void, count: q::size_t, size: q::size_t) -> *mut c_void {
        calloc(count as usize, size as usize)
    }

    unsafe extern "C" fn new(_: *mut c_void, size: q::size_t) -> *mut c_void {
        malloc(size as usize)
    }

    unsafe extern "C" fn end(_: *mut c_void, pointer: *mut c_void) {
        // SAFETY: QuickJS hands back what it was given, here and below.
        unsafe { free(pointer) };
    }

    unsafe extern "C" fn resize(_: *mut c_void, pointer: *mut c_void, size: q::size_t) -> *mut c_void {
        // SAFETY: as above.
        unsafe { realloc(pointer, size as usize) }
    }

    unsafe extern "C" fn size(pointer: *const c_void) -> q::size_t {
        // SAFETY: as above.
        unsafe { malloc_usable_size(pointer) as q::size_t }
    }
}

/// QuickJS asks after every 10,000 jumps and calls or so. Once told not to, it throws an error that a
/// script cannot catch, with the place in it.
unsafe extern "C" fn asked_to_go_on(_: *mut q::JSRuntime, _: *mut c_void) -> c_int {
    let left = PATIENCE.load(Relaxed);
    PATIENCE.store(left.saturating_sub(1), Relaxed);
    c_int::from(left == 0)
}

/// How often the next call may be asked whether it goes on.
pub fn be_patient(times: u32) {
    PATIENCE.store(times, Relaxed);
}

fn context() -> *mut q::JSContext {
    CONTEXT.load(Relaxed)
}

/// An exception takes the place of a value in QuickJS.
fn checked(raw: q::JSValue) -> Result<Value> {
    // SAFETY: only the tag is looked at.
    if unsafe { q::JS_IsException(raw) } { Err(Thrown) } else { Ok(Value(raw)) }
}

fn done(code: c_int) -> Result<()> {
    if code < 0 { Err(Thrown) } else { Ok(()) }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: an owned value is freed once.
        unsafe { q::JS_FreeValue(context(), self.0) };
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        // SAFETY: the value is alive.
        Self(unsafe { q::JS_DupValue(context(), self.0) })
    }
}

impl Default for Value {
    fn default() -> Self {
        Self::UNDEFINED
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(if value { q::JS_TRUE } else { q::JS_FALSE })
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self(q::JS_NewFloat64(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::from(f64::from(number))
    }
}

impl Value {
    pub const UNDEFINED: Self = Self(q::JS_UNDEFINED);

    fn into_raw(self) -> q::JSValue {
        ManuallyDrop::new(self).0
    }

    pub fn text(text: &str) -> Result<Self> {
        // SAFETY: pointer and length are of one string, which is copied.
        checked(unsafe { q::JS_NewStringLen(context(), text.as_ptr().cast(), text.len() as _) })
    }

    pub fn object() -> Result<Self> {
        // SAFETY: the context is alive.
        checked(unsafe { q::JS_NewObject(context()) })
    }

    /// An object whose prototype is `proto`, or nothing at all.
    pub fn object_of(proto: Option<&Self>) -> Result<Self> {
        let proto = proto.map_or(q::JS_NULL, |proto| proto.0);
        // SAFETY: the prototype is an object or null, and is not taken.
        checked(unsafe { q::JS_NewObjectProto(context(), proto) })
    }

    pub fn array(values: &[Self]) -> Result<Self> {
        let raw: Vec<_> = values.iter().map(|value| value.clone().into_raw()).collect();
        // SAFETY: the array takes over as many values as there are.
        checked(unsafe { q::JS_NewArrayFrom(context(), raw.len() as c_int, raw.as_ptr()) })
    }

    /// What the JSON text `json` stands for; errors call it `name`.
    pub fn from_json(json: &str, name: &str) -> Result<Self> {
        let (json, name) = (terminated(json), terminated(name));
        // SAFETY: both texts end with a zero, as JS_ParseJSON wants it.
        checked(unsafe {
            q::JS_ParseJSON(context(), json.as_ptr(), json.as_bytes().len() as _, name.as_ptr())
        })
    }

    /// Its JSON; none for what has none, such as a function.
    pub fn to_json(&self) -> Result<Option<String>> {
        // SAFETY: all values are alive and not taken.
        let text =
            checked(unsafe { q::JS_JSONStringify(context(), self.0, q::JS_UNDEFINED, q::JS_UNDEFINED) })?;
        if text.is_nothing() { Ok(None) } else { text.to_text().map(Some) }
    }

    pub fn global() -> Self {
        // SAFETY: the context is alive.
        Self(unsafe { q::JS_GetGlobalObject(context()) })
    }

    /// Undefined or null.
    pub fn is_nothing(&self) -> bool {
        // SAFETY: only the tag is looked at, here and below.
        unsafe { q::JS_IsUndefined(self.0) || q::JS_IsNull(self.0) }
    }

    pub fn is_string(&self) -> bool {
        // SAFETY: as above.
        unsafe { q::JS_IsString(self.0) }
    }

    pub fn is_object(&self) -> bool {
        // SAFETY: as above.
        unsafe { q::JS_IsObject(self.0) }
    }

    pub fn is_function(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { q::JS_IsFunction(context(), self.0) }
    }

    pub fn is_error(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { q::JS_IsError(self.0) }
    }

    pub fn is_promise(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { q::JS_IsPromise(self.0) }
    }

    pub fn is_true(&self) -> bool {
        self.0 == q::JS_TRUE
    }

    /// The number it is, without converting anything.
    pub fn number(&self) -> Option<f64> {
        // SAFETY: each is read as what its tag says it is.
        unsafe {
            match q::JS_VALUE_GET_NORM_TAG(self.0) {
                q::JS_TAG_INT => Some(f64::from(q::JS_VALUE_GET_INT(self.0))),
                q::JS_TAG_FLOAT64 => Some(q::JS_VALUE_GET_FLOAT64(self.0)),
                _ => None,
            }
        }
    }

    /// The whole number it is, when it is one that fits.
    pub fn whole(&self) -> Option<u32> {
        let number = self.number()?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared below")]
        let whole = number as u32;
        (f64::from(whole) == number).then_some(whole)
    }

    /// Where an object lives: the same object, the same address.
    pub fn address(&self) -> usize {
        // SAFETY: the pointer is compared, not followed.
        if self.is_object() { unsafe { q::JS_VALUE_GET_PTR(self.0) as usize } } else { 0 }
    }

    /// As a string, as `String(value)` makes it.
    pub fn to_text(&self) -> Result<String> {
        let mut length = 0;
        // SAFETY: the text is copied before it is freed.
        unsafe {
            let text = q::JS_ToCStringLen2(context(), &mut length, self.0, false);
            if text.is_null() {
                return Err(Thrown);
            }
            let bytes = slice::from_raw_parts(text.cast::<u8>(), length as usize);
            let owned = String::from_utf8_lossy(bytes).into_owned();
            q::JS_FreeCString(context(), text);
            Ok(owned)
        }
    }

    pub fn get(&self, name: &Name) -> Result<Self> {
        // SAFETY: both are alive.
        checked(unsafe { q::JS_GetProperty(context(), self.0, name.0) })
    }

    pub fn get_by(&self, name: &str) -> Result<Self> {
        self.get(&Name::new(name))
    }

    /// The element of an array.
    pub fn at(&self, place: u32) -> Result<Self> {
        // SAFETY: the value is alive.
        checked(unsafe { q::JS_GetPropertyUint32(context(), self.0, place) })
    }

    /// The length of an array; none of what is not one.
    pub fn length(&self) -> Result<Option<u32>> {
        thread_local!(static LENGTH: Name = Name::new("length"));
        if self.is_object() { LENGTH.with(|length| Ok(self.get(length)?.whole())) } else { Ok(None) }
    }

    /// Gives an object a property that scripts see and cannot change.
    pub fn define(&self, name: &Name, value: Self) -> Result<()> {
        const FLAGS: u32 = q::JS_PROP_CONFIGURABLE | q::JS_PROP_ENUMERABLE;
        self.define_as(name, value, FLAGS)
    }

    /// Gives an object a property like those of the language itself: changeable, not enumerated.
    pub fn define_method(&self, name: &str, value: Self) -> Result<()> {
        self.define_as(&Name::new(name), value, q::JS_PROP_CONFIGURABLE | q::JS_PROP_WRITABLE)
    }

    fn define_as(&self, name: &Name, value: Self, flags: u32) -> Result<()> {
        // SAFETY: the property takes over the value.
        done(unsafe {
            q::JS_DefinePropertyValue(context(), self.0, name.0, value.into_raw(), flags as c_int)
        })
    }

    /// Gives an object a property that is computed by a function when it is read.
    pub fn define_getter(&self, name: &str, function: usize) -> Result<()> {
        const FLAGS: c_int = (q::JS_PROP_CONFIGURABLE | q::JS_PROP_ENUMERABLE) as c_int;
        let getter = native(name, 0, function, q::JSCFunctionEnum_JS_CFUNC_getter_magic)?.into_raw();
        let name = Name::new(name);
        // SAFETY: the property takes over the getter.
        done(unsafe { q::JS_DefinePropertyGetSet(context(), self.0, name.0, getter, q::JS_UNDEFINED, FLAGS) })
    }

    pub fn freeze(&self) -> Result<()> {
        // SAFETY: the value is alive.
        done(unsafe { q::JS_FreezeObject(context(), self.0) })
    }

    /// Calls a function and then whatever promises have made due.
    pub fn call(&self, arguments: &[&Self]) -> Result<Self> {
        const MOST: usize = 3;
        let mut raw = [q::JS_UNDEFINED; MOST];
        for (raw, argument) in raw.iter_mut().zip(arguments) {
            *raw = argument.0;
        }
        let count = arguments.len().min(MOST) as c_int;
        let (runtime, full) = (RUNTIME.load(Relaxed), FULL.load(Relaxed) as q::size_t);
        // SAFETY: the runtime is alive.
        unsafe {
            if q::JS_GetGCThreshold(runtime) > full {
                q::JS_SetGCThreshold(runtime, full);
            }
        }
        // SAFETY: the arguments outlive the call, which does not take them.
        let answer =
            checked(unsafe { q::JS_Call(context(), self.0, q::JS_UNDEFINED, count, raw.as_mut_ptr()) })?;
        run_jobs()?;
        Ok(answer)
    }

    /// What a promise has come to; none when it is not settled.
    fn settled(&self) -> Option<Result<Self>> {
        // SAFETY: the value is alive; the result is a value of its own.
        unsafe {
            match q::JS_PromiseState(context(), self.0) {
                q::JSPromiseStateEnum_JS_PROMISE_PENDING => None,
                q::JSPromiseStateEnum_JS_PROMISE_REJECTED => {
                    Some(Err(throw(Self(q::JS_PromiseResult(context(), self.0)))))
                }
                _ => Some(Ok(Self(q::JS_PromiseResult(context(), self.0)))),
            }
        }
    }
}

impl Name {
    pub fn new(name: &str) -> Self {
        // SAFETY: pointer and length are of one string, which is copied.
        Self(unsafe { q::JS_NewAtomLen(context(), name.as_ptr().cast(), name.len() as _) })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // SAFETY: an owned name is freed once.
        unsafe { q::JS_FreeAtom(context(), self.0) };
    }
}

impl Arguments<'_> {
    pub const NONE: Self = Self(&[]);

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The argument at a place; undefined when there is none.
    pub fn get(&self, place: usize) -> Value {
        match self.0.get(place) {
            // SAFETY: arguments are alive while the function runs; the copy is a value of its own.
            Some(&raw) => Value(unsafe { q::JS_DupValue(context(), raw) }),
            None => Value::UNDEFINED,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value> {
        (0..self.len()).map(|place| self.get(place))
    }
}

/// The function at a place of [`FUNCTIONS`], for scripts.
pub fn function(name: &str, length: usize, function: usize) -> Result<Value> {
    native(name, length, function, q::JSCFunctionEnum_JS_CFUNC_generic_magic)
}

fn native(name: &str, length: usize, function: usize, kind: q::JSCFunctionEnum) -> Result<Value> {
    type Plain = unsafe extern "C" fn(*mut q::JSContext, q::JSValue, c_int, *mut q::JSValue) -> q::JSValue;
    let name = terminated(name);
    // SAFETY: QuickJS calls a function as its kind says, whatever type it is handed over with.
    unsafe {
        let pointer: *const () = if kind == q::JSCFunctionEnum_JS_CFUNC_getter_magic {
            called_as_getter as *const ()
        } else {
            called as *const ()
        };
        let pointer = std::mem::transmute::<*const (), Plain>(pointer);
        checked(q::JS_NewCFunction2(
            context(),
            Some(pointer),
            name.as_ptr(),
            length as c_int,
            kind,
            function as c_int,
        ))
    }
}

unsafe extern "C" fn called(
    _: *mut q::JSContext,
    _: q::JSValue,
    count: c_int,
    arguments: *mut q::JSValue,
    place: c_int,
) -> q::JSValue {
    // SAFETY: QuickJS hands over so many values.
    answer(place, unsafe { slice::from_raw_parts(arguments, count as usize) })
}

unsafe extern "C" fn called_as_getter(_: *mut q::JSContext, _: q::JSValue, place: c_int) -> q::JSValue {
    answer(place, &[])
}

fn answer(place: c_int, arguments: &[q::JSValue]) -> q::JSValue {
    match FUNCTIONS.get(place as usize).map(|function| (function.call)(Arguments(arguments))) {
        Some(Ok(value)) => value.into_raw(),
        Some(Err(Thrown)) => q::JS_EXCEPTION,
        None => q::JS_UNDEFINED,
    }
}

/// Compiles and runs an ES module; returns what it exports.
pub fn module(text: &str, name: &str) -> Result<std::result::Result<Value, String>> {
    const FLAGS: c_int = (q::JS_EVAL_TYPE_MODULE | q::JS_EVAL_FLAG_COMPILE_ONLY) as c_int;
    let (text, name) = (terminated(text), terminated(name));
    // SAFETY: the text ends with a zero; the module lives as long as the context.
    let (exports, promise) = unsafe {
        let length = text.as_bytes().len();
        let compiled = q::JS_Eval(context(), text.as_ptr(), length as _, name.as_ptr(), FLAGS);
        let compiled = checked(compiled)?.into_raw();
        let module = q::JS_VALUE_GET_PTR(compiled).cast();
        let promise = checked(q::JS_EvalFunction(context(), compiled))?;
        (module, promise)
    };
    run_jobs()?;
    match promise.settled() {
        Some(settled) => settled.map(drop)?,
        None => return Ok(Err("it waits at top level for something that never comes".to_owned())),
    }
    // SAFETY: the module has been evaluated.
    checked(unsafe { q::JS_GetModuleNamespace(context(), exports) }).map(Ok)
}

/// Runs what promises have made due.
fn run_jobs() -> Result<()> {
    let runtime = RUNTIME.load(Relaxed);
    // SAFETY: the runtime is alive.
    unsafe {
        while q::JS_IsJobPending(runtime) {
            let mut context = ptr::null_mut();
            done(q::JS_ExecutePendingJob(runtime, &mut context))?;
        }
    }
    Ok(())
}

/// The names of an object's own properties.
pub fn names(object: &Value) -> Result<Vec<String>> {
    let (mut table, mut length) = (ptr::null_mut(), 0);
    // SAFETY: the table has that length and is freed once, after the names were copied.
    unsafe {
        let flags = q::JS_GPN_STRING_MASK as c_int;
        done(q::JS_GetOwnPropertyNames(context(), &mut table, &mut length, object.0, flags))?;
        let entries = slice::from_raw_parts(table, length as usize);
        let names = entries
            .iter()
            .map(|entry| {
                let mut length: q::size_t = 0;
                let text = q::JS_AtomToCStringLen(context(), &mut length, entry.atom);
                let bytes = slice::from_raw_parts(text.cast::<u8>(), length as usize);
                let name = String::from_utf8_lossy(bytes).into_owned();
                q::JS_FreeCString(context(), text);
                name
            })
            .collect();
        q::JS_FreePropertyEnum(context(), table, length);
        Ok(names)
    }
}

/// Throws a value.
pub fn throw(value: Value) -> Thrown {
    // SAFETY: the context takes over the value.
    unsafe { q::JS_Throw(context(), value.into_raw()) };
    Thrown
}

/// Throws a `TypeError`.
pub fn type_error(message: &str) -> Thrown {
    let message = terminated(message);
    // SAFETY: the format takes one string.
    unsafe { q::JS_ThrowTypeError(context(), c"%s".as_ptr(), message.as_ptr()) };
    Thrown
}

/// Throws a `RangeError`.
pub fn range_error(message: &str) -> Thrown {
    let message = terminated(message);
    // SAFETY: as above.
    unsafe { q::JS_ThrowRangeError(context(), c"%s".as_ptr(), message.as_ptr()) };
    Thrown
}

/// Takes the exception that is waiting.
pub fn caught(_: Thrown) -> Exception {
    // SAFETY: the exception is a value of its own.
    let exception = Value(unsafe { q::JS_GetException(context()) });
    // What is thrown may do anything when it is looked at, even throw; and it has time for it.
    be_patient(1);
    let text = exception.to_text().unwrap_or_else(|Thrown| forget("an error that cannot be shown"));
    if !exception.is_error() {
        return Exception { text: format!("thrown: {text}"), stack: String::new() };
    }
    let stack = exception.get_by("stack").and_then(|stack| stack.to_text());
    Exception { text, stack: stack.unwrap_or_else(|Thrown| forget("")) }
}

/// Drops the exception that is waiting.
fn forget(instead: &str) -> String {
    // SAFETY: the exception is a value of its own.
    drop(Value(unsafe { q::JS_GetException(context()) }));
    instead.to_owned()
}

/// A text for C. What stands behind a zero is lost.
fn terminated(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// The clock that `Date` is read from, in microseconds: sidetrack's, which has no time of day.
#[unsafe(no_mangle)]
extern "C" fn __rquickjs_host_now_us() -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact for 285 years")]
    let microseconds = (sidetrack_policy::host::now() / 1000) as f64;
    microseconds
}
