//! Tables: columns of tab-separated cells, at least ten wide, three spaces apart.

const WIDTH_MIN: usize = 10;
const PADDING: usize = 3;

/// Lays out lines whose cells are separated by tabs. The last cell of a line belongs to no column.
///
/// A column reaches over consecutive lines that have a cell there; a line with fewer cells ends it.
pub fn layout(text: &str) -> String {
    layout_with(text, WIDTH_MIN, PADDING)
}

/// Lays out with other widths.
pub fn layout_with(text: &str, minimum: usize, padding: usize) -> String {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let lines: Vec<Vec<&str>> = body
        .split('\n')
        .map(|line| line.split('\t').collect())
        .collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![vec![0usize; columns]; lines.len()];
    for column in 0..columns {
        let mut from = 0;
        while from < lines.len() {
            let run = lines[from..]
                .iter()
                .take_while(|cells| cells.len() > column + 1)
                .count();
            let width = lines[from..from + run]
                .iter()
                .map(|cells| cells[column].chars().count() + padding)
                .max()
                .unwrap_or(0)
                .max(minimum);
            widths[from..from + run]
                .iter_mut()
                .for_each(|row| row[column] = width);
            from += run.max(1);
        }
    }
    let mut out = String::new();
    for (line, widths) in lines.iter().zip(&widths) {
        for (at, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < line.len() {
                let used = cell.chars().count();
                out.extend(std::iter::repeat_n(' ', widths[at].saturating_sub(used)));
            }
        }
        out.push('\n');
    }
    if text.ends_with('\n') || text.is_empty() {
        if text.is_empty() {
            out.clear();
        }
    } else {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_a_least_width() {
        assert_eq!(
            layout("A\tB\nlonger than ten\tx\n"),
            "A                 B\nlonger than ten   x\n"
        );
        assert_eq!(layout("A\tB\n"), "A         B\n");
        assert_eq!(layout(""), "");
    }

    #[test]
    fn a_line_without_cells_ends_a_column() {
        assert_eq!(
            layout("a\tb\n\nlong long cell\tb\n"),
            "a         b\n\nlong long cell   b\n"
        );
    }
}
