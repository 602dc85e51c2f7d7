//! Writes what the C template takes from the contract: bindings by wit-bindgen, and the type
//! information that a policy's module carries. Its arguments are the contract and the folder.

use std::fmt::Write as _;
use std::{env, error, fs, path};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;
use wit_component::StringEncoding;

/// The worlds of the contract, and what C calls each.
const WORLDS: [(&str, &str); 5] = [
    ("routing", "EXPORT_POLICY"),
    ("routing-sessions", "EXPORT_SESSIONS"),
    ("routing-state", "EXPORT_STATE"),
    ("routing-schema", "EXPORT_SCHEMA"),
    ("routing-events", "EXPORT_EVENTS"),
];

/// Bytes in a line of the type information.
const LINE: usize = 40;

fn main() -> Result<(), Box<dyn error::Error>> {
    let [_, contract, folder] = &env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: bindings CONTRACT FOLDER".into());
    };
    let folder = path::Path::new(folder);
    let mut resolve = Resolve::default();
    let package = resolve.push_source("policy.wit", &fs::read_to_string(contract)?)?;
    let version = resolve.packages[package].name.version.clone().ok_or("the contract has no version")?;

    let mut types = String::from(
        "/* What a module's custom sections say about the interfaces it exports, by which sidetrack makes a\n \
         * component of it. Made of the contract; not to be edited. */\n\n\
         #define COMPONENT_TYPE(world, bytes) \\\n    \
         __asm__(\".section \\\".custom_section.component-type:\" world \"\\\",\\\"\\\",@\\n\" bytes)\n",
    );
    let mut all = String::from("package sidetrack:c;\nworld bindings {\n");
    for (world, name) in WORLDS {
        let id = resolve.select_world(&[package], Some(world))?;
        let bytes = wit_component::metadata::encode(&resolve, id, StringEncoding::UTF8, None)?;
        let lines: Vec<_> =
            bytes.chunks(LINE).map(|line| format!("\".ascii \\\"{}\\\"\\n\"", escape(line))).collect();
        write!(types, "\n#define {name} COMPONENT_TYPE(\"{world}\", \\\n        ")?;
        writeln!(types, "{})", lines.join(" \\\n        "))?;
        writeln!(all, "include sidetrack:policy/{world}@{version};")?;
    }
    fs::write(folder.join("interfaces.h"), types)?;

    let all = resolve.push_source("all.wit", &(all + "}\n"))?;
    let world = resolve.select_world(&[all], Some("bindings"))?;
    let mut files = Files::default();
    let options = wit_bindgen_c::Opts { no_object_file: true, ..Default::default() };
    options.build().generate(&mut resolve, world, &mut files)?;
    for (name, text) in files.iter() {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Bytes as they stand in an assembler's string inside a C string.
fn escape(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let text = |&byte: &u8| if plain(byte) { char::from(byte).to_string() } else { format!("\\\\{byte:03o}") };
    bytes.iter().map(text).collect()
}
