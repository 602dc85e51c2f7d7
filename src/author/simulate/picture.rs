//! How even the loads were over time: a line of text, and a drawing.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;

use super::Course;

/// Columns of the line.
const WIDTH: usize = 48;

/// Ratios as blocks of eight heights, 1 being the lowest and `highest` the tallest.
pub(super) fn line(ratios: &[f64], highest: f64) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = ratios.len().div_ceil(WIDTH).max(1);
    ratios
        .chunks(width)
        .map(|part| {
            let mean = part.iter().sum::<f64>() / part.len() as f64;
            // Less than one part in a hundred is even, whatever the scale.
            let share = (mean - 1.0) / (highest - 1.0).max(0.01);
            let height = (share * 8.0).clamp(0.0, 7.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
            BLOCKS[height as usize]
        })
        .collect()
}

/// Draws the course of every policy into an SVG file.
pub(super) fn draw(path: &Path, courses: &[Course], time: Duration) -> Result<(), Box<dyn Error>> {
    let highest = courses.iter().flat_map(Course::ratios).fold(1.1, f64::max);
    let seconds = time.as_secs_f64();
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (960, 480)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("busiest worker's load against the mean", ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..seconds, 1.0..highest * 1.05)?;
        chart.configure_mesh().x_desc("seconds").y_desc("busiest / mean").draw()?;
        for (number, course) in courses.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            let ratios = course.ratios();
            let step = seconds / ratios.len().max(1) as f64;
            let points = ratios.iter().enumerate().map(|(at, ratio)| ((at + 1) as f64 * step, *ratio));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(course.policy.clone())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(3)));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        area.present()?;
    }
    std::fs::write(path, text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_flat_where_loads_are_even() {
        assert_eq!(line(&[1.0, 1.0, 1.5, 2.0], 2.0), "▁▁▅█");
        assert_eq!(line(&[1.0; 480], 1.0).chars().count(), WIDTH);
    }
}
