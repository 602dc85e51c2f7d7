//! Files that are no policies, and the one line that each gets.

use std::fs;
use std::sync::Arc;

use sidetrack::policy::{BuiltIn, Chain, PolicyLink, PolicySource, SessionOwner, Settings};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, CodeSection, Component, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentImportSection, ComponentInstanceSection, ComponentTypeRef,
    ComponentTypeSection, ComponentValType, EntityType, ExportKind, ExportSection, Function, FunctionSection,
    ImportSection, InstanceSection, InstanceType, Module, ModuleSection, TypeSection,
};

use crate::support::guest;

/// What loading `bytes` from a file says, without the name of the file.
fn complaint(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mine.wasm");
    fs::write(&path, bytes).expect("a temporary file");
    let prefix = format!("policy `{}`: ", path.display());
    let error = load(&PolicySource::File(path));
    assert!(!error.contains('\n'), "one line: {error}");
    error.strip_prefix(&prefix).unwrap_or_else(|| panic!("names the file: {error}")).to_owned()
}

fn load(source: &PolicySource) -> String {
    load_link(&PolicyLink::plain(source.clone()))
}

fn load_link(link: &PolicyLink) -> String {
    let nobody: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
    match Chain::build(std::slice::from_ref(link), &Settings::default(), &nobody) {
        Ok(chain) => panic!("expected an error, got {chain:?}"),
        Err(error) => error.to_string(),
    }
}

/// A component that exports `name` as an instance with these functions, which take and do nothing.
fn component(name: &str, functions: &[&str]) -> Vec<u8> {
    let mut core = InstanceSection::new();
    core.instantiate::<[_; 0], &str>(0, []);
    let mut aliases = ComponentAliasSection::new();
    aliases.alias(Alias::CoreInstanceExport { instance: 0, kind: ExportKind::Func, name: "_start" });
    let mut types = ComponentTypeSection::new();
    types.function().params::<[_; 0], ComponentValType>([]).result(None);
    let mut lifted = CanonicalFunctionSection::new();
    lifted.lift(0, 0, []);
    let mut instances = ComponentInstanceSection::new();
    let functions = functions.iter().map(|&function| (function, ComponentExportKind::Func, 0));
    instances.export_items(functions.collect::<Vec<_>>());
    let mut exports = ComponentExportSection::new();
    exports.export(name, ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component.section(&ModuleSection(&module_sections(None))).section(&core).section(&aliases);
    component.section(&types).section(&lifted).section(&instances).section(&exports);
    component.finish()
}

/// A component that imports an instance without anything in it.
fn importing(import: &str) -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(import, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

/// A core module that imports one function and exports one.
fn module(import: Option<(&str, &str)>) -> Vec<u8> {
    module_sections(import).finish()
}

fn module_sections(import: Option<(&str, &str)>) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut module = Module::new();
    module.section(&types);
    if let Some((from, name)) = import {
        module.section(ImportSection::new().import(from, name, EntityType::Function(0)));
    }
    module.section(FunctionSection::new().function(0));
    let index = u32::from(import.is_some());
    module.section(ExportSection::new().export("_start", ExportKind::Func, index));
    let mut body = Function::new([]);
    body.instructions().end();
    module.section(CodeSection::new().function(&body));
    module
}

#[test]
fn files_that_are_not_wasm() {
    assert_eq!(complaint(b""), "the file is empty: expected a WebAssembly component");
    assert_eq!(
        complaint(b"#!/bin/sh\nexit"),
        r"not WebAssembly: expected a file that begins with `\0asm`, found `#!/bin/s`; a script's name ends in .js or .mjs, and `sidetrack policy new` begins a policy of either kind"
    );
    assert_eq!(
        complaint(b"\n(module)"),
        "WebAssembly text: expected the binary format, which `wasm-tools parse` makes of it"
    );
    assert_eq!(
        complaint(b"\0asm\x02\0\0\0rest"),
        "WebAssembly of an unknown kind: expected a component (0d 00 01 00) or a core module (01 00 00 00), \
         found [02, 00, 00, 00] at byte 4"
    );
}

#[test]
fn files_that_end_too_soon() {
    let whole = BuiltIn::RoundRobin.wasm();
    for length in (1..whole.len()).step_by(997).chain(1..12).chain([whole.len() - 1]) {
        let said = complaint(&whole[..length]);
        // A cut between two sections leaves valid WebAssembly that lacks something.
        let expected = [
            format!("the file is cut short: expected more WebAssembly after its {length} bytes"),
            "a core module without a policy's type information".to_owned(),
        ];
        assert!(expected.iter().any(|expected| said.starts_with(expected)), "at {length}: {said}");
    }
    let whole = component("a:b/c@1.0.0", &["f"]);
    for length in 8..whole.len() {
        complaint(&whole[..length]);
    }
}

#[test]
fn damaged_files_get_a_line_and_never_a_panic() {
    let whole = BuiltIn::LeastConnection.wasm();
    for place in (8..whole.len()).step_by(211) {
        let mut damaged = whole.to_vec();
        damaged[place] ^= 0x55;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("mine.wasm");
        fs::write(&path, damaged).expect("a temporary file");
        // Damage in a constant may go unnoticed; anything else is one line.
        if let Err(error) =
            Chain::load(&PolicySource::File(path), &Settings::default(), Arc::new(|_: &str| None))
        {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}

#[test]
fn programs_of_another_kind() {
    assert_eq!(
        complaint(&module(Some(("wasi_snapshot_preview1", "fd_write")))),
        "a WASI program: expected imports from sidetrack:policy alone, found `wasi_snapshot_preview1`; \
         compile for wasm32-unknown-unknown, or with WASI stubbed out"
    );
    assert_eq!(
        complaint(&module(None)),
        "a core module without a policy's type information: expected one made with the sidetrack-policy \
         crate or with wit-bindgen, found exports `_start`"
    );
    assert_eq!(
        complaint(&importing("wasi:clocks/monotonic-clock@0.2.6")),
        "a WASI program: expected imports from sidetrack:policy alone, found \
         `wasi:clocks/monotonic-clock@0.2.6`; compile for wasm32-unknown-unknown, or with WASI stubbed out"
    );
    assert_eq!(
        complaint(&importing("my:own/clock@1.0.0")),
        "a foreign import: expected imports from sidetrack:policy alone, found `my:own/clock@1.0.0`"
    );
    assert_eq!(
        complaint(&Component::new().finish()),
        "no policy: expected the export `sidetrack:policy/policy@1.0.0`, found nothing"
    );
    assert_eq!(
        complaint(&component("wasi:cli/run@0.2.6", &[])),
        "no policy: expected the export `sidetrack:policy/policy@1.0.0`, found `wasi:cli/run@0.2.6`"
    );
}

#[test]
fn policies_of_another_contract() {
    for other in ["sidetrack:policy/policy@2.0.0", "sidetrack:policy/policy@0.1.0"] {
        assert_eq!(
            complaint(&component(other, &["balance"])),
            format!("another version of the contract: expected sidetrack:policy@1.x, found `{other}`")
        );
    }
    assert_eq!(
        complaint(&component("sidetrack:policy/policy@1.0.0", &["configure", "set-workers"])),
        "an incomplete policy: expected `balance` in the export `sidetrack:policy/policy@1.0.0`, \
         found `configure`, `set-workers`"
    );
    let said =
        complaint(&component("sidetrack:policy/policy@1.0.0", &["configure", "set-workers", "balance"]));
    assert!(said.starts_with("does not fit the contract sidetrack:policy@1.0.0: "), "{said}");
}

#[test]
fn policies_that_fail_before_they_serve() {
    let with = |options: &str| {
        let source = PolicySource::File(guest("policy_hostile"));
        let said = load_link(&PolicyLink { source, options: options.into() });
        said.split_once("`: ").map_or_else(|| said.clone(), |(_, said)| said.to_owned())
    };
    assert_eq!(with("5"), "`configure` refused the options: I know no option 5");
    assert_eq!(with(r#""loop""#), "a trial call failed: configure used up its budget");
    let said = with(r#""panic""#);
    assert!(said.starts_with("a trial call failed: configure trapped: panicked at "), "{said}");
    assert!(said.ends_with("on purpose, while configuring"), "{said}");
    let said = with(r#""request""#);
    assert!(said.contains("asked for a request outside `balance` and `find`"), "{said}");
}

#[test]
fn files_that_are_not_there() {
    let said = load(&PolicySource::File("/nowhere/mine.wasm".into()));
    assert!(said.starts_with("policy `/nowhere/mine.wasm`: cannot read the file: No such file"), "{said}");
}
