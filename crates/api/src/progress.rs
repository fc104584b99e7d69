//! How far a step has come, as Docker draws it in one line.

use crate::image::ProgressDetail;

/// The bar's cells.
const CELLS: i64 = 50;

/// Formats a number with so many significant digits, as Go's `%.*g`.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{value:.decimals$}"))
}

/// Formats a number with the unit in which it is smaller than `base`, and so many significant digits.
pub fn scaled(size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut size = size;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), units[unit])
}

/// Formats a size with decimal units and so many significant digits.
pub fn size(bytes: f64, digits: usize) -> String {
    scaled(
        bytes,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
        digits,
    )
}

/// Draws bar and numbers for a terminal of so many columns; empty where nothing is known yet.
pub fn draw(detail: &ProgressDetail, columns: usize) -> String {
    let (current, total) = (detail.current, detail.total);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    let number = |count: i64| match detail.units.as_str() {
        "" => size(count as f64, 4),
        _ => count.to_string(),
    };
    let unit = match detail.units.as_str() {
        "" => String::new(),
        unit => format!(" {unit}"),
    };
    if total <= 0 {
        return format!("{:>8}", format!("{}{unit}", number(current)));
    }
    // As Docker's: of a hundred parts two are a cell.
    let cells = ((current as f64 / total as f64 * 100.0) as i64 / 2).clamp(0, CELLS) as usize;
    let bar = match columns > 110 {
        true => format!(
            "[{}>{}] ",
            "=".repeat(cells),
            " ".repeat(CELLS as usize - cells)
        ),
        false => String::new(),
    };
    let numbers = match () {
        () if detail.hidecounts => String::new(),
        // A total that is passed was none.
        () if current > total && unit.is_empty() => format!("{:>8}", number(current)),
        () if current > total => format!("{}{unit}", number(current)),
        () if unit.is_empty() => format!("{:>8}/{}", number(current), number(total)),
        () => format!("{}/{}{unit}", number(current), number(total)),
    };
    format!("{bar}{numbers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_dockers() {
        let check = |current: i64, total: i64, want: &str| {
            let detail = ProgressDetail {
                current,
                total,
                ..ProgressDetail::default()
            };
            assert_eq!(draw(&detail, 200), want);
        };
        check(0, 0, "");
        check(
            36_446,
            701_010,
            "[==>                                                ]  36.45kB/701kB",
        );
        check(
            512,
            26,
            "[==================================================>]     512B",
        );
        check(
            38_400,
            1_984_311,
            "[>                                                  ]   38.4kB/1.984MB",
        );
        check(
            701_010,
            701_010,
            "[==================================================>]    701kB/701kB",
        );
        check(1_000, 0, "     1kB");
    }

    #[test]
    fn sizes() {
        assert_eq!(size(0.0, 3), "0B");
        assert_eq!(size(4_260_000.0, 3), "4.26MB");
        assert_eq!(size(1_000.0, 3), "1kB");
        assert_eq!(size(123_456.0, 4), "123.5kB");
        assert_eq!(size(999_900.0, 3), "1e+03kB");
        assert_eq!(size(77_800_000.0, 3), "77.8MB");
    }
}
