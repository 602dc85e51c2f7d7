//! Looks at the bytes of a policy file before anything is compiled, and says in one line what is
//! wrong with them.
//!
//! wasmtime would refuse the same files, but in its own terms. Only names are compared here;
//! whether functions have the right types shows when the component is linked.

use wasmparser::{Encoding, Parser, Payload};

/// The package policies are written for, and the major version this host speaks.
const PACKAGE: &str = "sidetrack:policy/";
const MAJOR: &str = "1";

/// A file that cannot be a policy. Every message says what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    #[error("the file is empty: expected a WebAssembly component")]
    Empty,
    #[error(
        "not WebAssembly: expected a file that begins with `\\0asm`, found `{}`; a script's name ends in .js or .mjs, and `sidetrack policy new` begins a policy of either kind",
        found.escape_ascii()
    )]
    NotWasm { found: Vec<u8> },
    #[error("WebAssembly text: expected the binary format, which `wasm-tools parse` makes of it")]
    Text,
    #[error(
        "WebAssembly of an unknown kind: expected a component (0d 00 01 00) or a core module (01 00 00 00), found {found:02x?} at byte 4"
    )]
    UnknownKind { found: Vec<u8> },
    #[error("the file is cut short: expected more WebAssembly after its {found} bytes")]
    Truncated { found: usize },
    #[error("damaged WebAssembly: {0}")]
    Damaged(String),
    #[error("WebAssembly that this host cannot compile: {0}")]
    Compile(String),
    #[error(
        "a WASI program: expected imports from sidetrack:policy alone, found `{found}`; compile for wasm32-unknown-unknown, or with WASI stubbed out"
    )]
    Wasi { found: String },
    #[error("a foreign import: expected imports from sidetrack:policy alone, found `{found}`")]
    ForeignImport { found: String },
    #[error(
        "a core module without a policy's type information: expected one made with the sidetrack-policy crate or with wit-bindgen, found exports {found}"
    )]
    NoTypes { found: String },
    #[error("no policy: expected the export `sidetrack:policy/policy@1.0.0`, found {found}")]
    NoPolicy { found: String },
    #[error("another version of the contract: expected sidetrack:policy@{MAJOR}.x, found `{found}`")]
    Version { found: String },
    #[error(
        "an incomplete policy: expected `{missing}` in the export `sidetrack:policy/policy@1.0.0`, found {found}"
    )]
    NoFunction { missing: &'static str, found: String },
    #[error("does not fit the contract sidetrack:policy@1.0.0: {0}")]
    Types(String),
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Component,
    /// A core module that carries its component type, to be wrapped by the host.
    Module,
}

/// Checks the file as far as it can be done without compiling it.
pub(super) fn inspect(bytes: &[u8]) -> Result<Kind, ContractError> {
    kind_by_header(bytes)?;
    let outline = Outline::read(bytes)?;
    outline.check_imports()?;
    match outline.kind {
        Kind::Module if outline.has_component_type => Ok(Kind::Module),
        Kind::Module => Err(ContractError::NoTypes { found: list(&outline.exports) }),
        Kind::Component => outline.check_exports().map(|()| Kind::Component),
    }
}

/// A component's required functions, which its type must list.
pub(super) fn check_functions<'a>(found: impl Iterator<Item = &'a str>) -> Result<(), ContractError> {
    let found: Vec<String> = found.map(ToOwned::to_owned).collect();
    for missing in ["configure", "set-workers", "balance"] {
        if !found.iter().any(|name| name == missing) {
            return Err(ContractError::NoFunction { missing, found: list(&found) });
        }
    }
    Ok(())
}

/// Whether an export is interface `name` of a version this host speaks.
pub(super) fn is_interface(export: &str, name: &str) -> bool {
    export
        .strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_prefix(name))
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(speaks)
}

fn kind_by_header(bytes: &[u8]) -> Result<(), ContractError> {
    const MAGIC: &[u8] = b"\0asm";
    let begin = &bytes[..bytes.len().min(8)];
    match begin {
        [] => Err(ContractError::Empty),
        _ if bytes.trim_ascii_start().starts_with(b"(") => Err(ContractError::Text),
        _ if bytes.len() < 8 && (MAGIC.starts_with(begin) || begin.starts_with(MAGIC)) => {
            Err(ContractError::Truncated { found: bytes.len() })
        }
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0] | [0, b'a', b's', b'm', 1, 0, 0, 0] => Ok(()),
        [0, b'a', b's', b'm', kind @ ..] => Err(ContractError::UnknownKind { found: kind.into() }),
        _ => Err(ContractError::NotWasm { found: begin.into() }),
    }
}

/// The names a file shows to the outside.
struct Outline {
    kind: Kind,
    imports: Vec<String>,
    exports: Vec<String>,
    has_component_type: bool,
}

impl Outline {
    fn read(bytes: &[u8]) -> Result<Self, ContractError> {
        let damaged = |error: wasmparser::BinaryReaderError| {
            // The parser reports the end of the file in several words, all of them at the end.
            if error.message().contains("unexpected end") || error.offset() >= bytes.len() as u64 {
                ContractError::Truncated { found: bytes.len() }
            } else {
                ContractError::Damaged(super::one_line(&error.to_string()))
            }
        };
        let mut outline =
            Self { kind: Kind::Module, imports: vec![], exports: vec![], has_component_type: false };
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(damaged)?;
            match payload {
                Payload::Version { encoding, .. } => {
                    if depth == 0 && encoding == Encoding::Component {
                        outline.kind = Kind::Component;
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth != 1 => {}
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        outline.imports.push(import.map_err(damaged)?.module.to_owned());
                    }
                }
                Payload::ComponentImportSection(section) => {
                    for import in section {
                        outline.imports.push(import.map_err(damaged)?.name.name.to_owned());
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        outline.exports.push(export.map_err(damaged)?.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        outline.exports.push(export.map_err(damaged)?.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) => {
                    outline.has_component_type |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn check_imports(&self) -> Result<(), ContractError> {
        for import in &self.imports {
            if import.starts_with("wasi") {
                return Err(ContractError::Wasi { found: import.clone() });
            }
            match import.strip_prefix(PACKAGE) {
                Some(interface) => check_version(import, interface)?,
                // Core modules may import from the linker's own namespaces, which encoding resolves.
                None if self.kind == Kind::Module => {}
                None => return Err(ContractError::ForeignImport { found: import.clone() }),
            }
        }
        Ok(())
    }

    fn check_exports(&self) -> Result<(), ContractError> {
        if self.exports.iter().any(|export| is_interface(export, "policy")) {
            return Ok(());
        }
        for export in &self.exports {
            if let Some(interface) = export.strip_prefix(PACKAGE) {
                check_version(export, interface)?;
            }
        }
        Err(ContractError::NoPolicy { found: list(&self.exports) })
    }
}

/// Refuses `interface@version` of another major version.
fn check_version(full: &str, interface: &str) -> Result<(), ContractError> {
    match interface.split_once('@') {
        Some((_, version)) if speaks(version) => Ok(()),
        _ => Err(ContractError::Version { found: full.to_owned() }),
    }
}

/// Pre-releases match nothing but themselves, and none was ever the contract.
fn speaks(version: &str) -> bool {
    version.split('.').next() == Some(MAJOR) && !version.contains('-')
}

/// Names for an error message: a few, quoted.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    super::one_line(&match names.len() {
        0 => "nothing".to_owned(),
        count if count > SHOWN => format!("{shown} and {} more", count - SHOWN),
        _ => shown,
    })
}
