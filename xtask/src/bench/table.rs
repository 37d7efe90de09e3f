//! Plain text tables and medians.

use std::fmt;

/// A table with aligned columns, in Markdown's form so that it can go into docs as it is.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub(super) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(String::from).to_vec()],
        }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].len())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                for width in &widths {
                    write!(f, "|{}", "-".repeat(width + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// The middle value; not a number when there is none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How a contender compares with another in the same rounds: the median of the ratios round by round, and in how many
/// rounds it was at least equal. What disturbs a round hits both, so this says more than a ratio of medians.
pub(super) fn compare(rates: &[f64], base: &[f64]) -> String {
    let pairs = || rates.iter().zip(base);
    let ratio = median(pairs().map(|(rate, base)| rate / base));
    let ahead = pairs().filter(|(rate, base)| rate >= base).count();
    format!("{ratio:.2} ({ahead} of {})", pairs().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["a", "long"]);
        table.row(["wide".into(), "1".into()]);
        assert_eq!(
            table.to_string(),
            "| a    | long |\n|------|------|\n| wide | 1    |\n"
        );
    }

    #[test]
    fn the_median_ignores_order() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn rounds_are_compared_one_by_one() {
        // The second round was disturbed for both.
        assert_eq!(
            compare(&[9.0, 2.0, 12.0], &[10.0, 1.0, 10.0]),
            "1.20 (2 of 3)"
        );
    }
}
