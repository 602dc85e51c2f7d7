//! A table's first column, and what a connection or request costs in front, as bars.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::table::Table;

const WIDTH: u32 = 860;
const NAMES: i32 = 250;
const BAR: i32 = 22;
const GAP: i32 = 8;
const TOP: i32 = 40;
/// The first row's, and everybody else's.
const COLOURS: [RGBColor; 2] = [RGBColor(0x1f, 0x6f, 0xeb), RGBColor(0x8c, 0x95, 0x9f)];
/// Readable on white and on black.
const INK: RGBColor = RGBColor(0x6e, 0x77, 0x81);

pub fn draw(path: &Path, table: &Table) -> Result<(), Box<dyn Error>> {
    let costs = |name: &str| name.starts_with("proxy µs") || name == "more with them, KiB";
    let columns: Vec<usize> =
        (0..table.columns.len()).filter(|&place| place == 0 || costs(&table.columns[place].name)).collect();
    let rows = i32::try_from(table.rows.len())?;
    let block = TOP + rows * (BAR + GAP) + GAP;
    let height = block * i32::try_from(columns.len())? + TOP;
    let area = SVGBackend::new(path, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(table.title.clone(), (10, 12), text(16)))?;
    for (turn, &column) in columns.iter().enumerate() {
        let top = TOP + block * i32::try_from(turn)?;
        area.draw(&Text::new(table.columns[column].name.clone(), (NAMES, top), text(13)))?;
        let most = table.rows.iter().filter_map(|(_, figures)| figures[column]).fold(0.0, f64::max);
        let room = f64::from(i32::try_from(WIDTH)? - NAMES - 90);
        for (place, (name, figures)) in table.rows.iter().enumerate() {
            let y = top + TOP / 2 + i32::try_from(place)? * (BAR + GAP);
            let right = text(13).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(name.clone(), (NAMES - 10, y + BAR / 2), right))?;
            let figure = figures[column];
            #[allow(clippy::cast_possible_truncation, reason = "less than the picture is wide")]
            let long =
                figure.map_or(0, |figure| (figure.max(0.0) / most.max(f64::MIN_POSITIVE) * room) as i32);
            let mine = name.starts_with("sidetrack");
            let colour = COLOURS[usize::from(!mine)];
            area.draw(&Rectangle::new([(NAMES, y), (NAMES + long, y + BAR)], colour.filled()))?;
            let left = text(13).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(table.shown(column, figure), (NAMES + long + 6, y + BAR / 2), left))?;
        }
    }
    area.present()?;
    Ok(())
}
