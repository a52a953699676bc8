//! Rounds: all rows of a table take turns, and what counts is their ratio within a round.

use std::time::Instant;

use futures_util::future::BoxFuture;

use crate::Result;
use crate::measured::Measured;

/// Rows that are measured against each other.
pub(crate) trait Table: Sync {
    fn title(&self) -> String;

    /// The rows; one that names another is shown as a ratio to that one.
    fn rows(&self) -> &[RowName];

    /// Makes ready what all rows of a round need.
    fn before(&self, round: usize) -> BoxFuture<'_, Result<()>>;

    /// Measures a row.
    fn measure(&self, round: usize, row: usize) -> BoxFuture<'_, Result<Measured>>;

    /// Checks at the server what all rows of a round left, and takes it away.
    fn after(&self, round: usize) -> BoxFuture<'_, Result<()>>;
}

/// A row of a table.
#[derive(Clone, Debug)]
pub(crate) struct RowName {
    pub(crate) name: String,
    /// A raw client's row: what others are measured against.
    pub(crate) raw: bool,
}

/// Runs a table and prints it. A round that fails its check counts for no row.
pub(crate) async fn run(table: &dyn Table, rounds: usize) -> Result<()> {
    let rows = table.rows();
    let begun = Instant::now();
    let mut passed: Vec<Vec<Measured>> = Vec::new();
    for round in 0..rounds {
        match one(table, round).await {
            Ok(rates) => passed.push(rates),
            Err(error) => eprintln!("{}: round {round} does not count: {error}", table.title()),
        }
    }
    println!("### {}\n", table.title());
    if passed.is_empty() {
        return Err("no round passed its check".into());
    }
    print(rows, &passed, rounds);
    eprintln!("({} took {:?})", table.title(), begun.elapsed());
    Ok(())
}

async fn one(table: &dyn Table, round: usize) -> Result<Vec<Measured>> {
    let count = table.rows().len();
    table.before(round).await?;
    let mut rates = vec![Measured::default(); count];
    let mut failed = None;
    for turn in 0..count {
        // Another one begins each time; every second round goes backwards, so that each row is
        // measured after different ones.
        let turn = if round.is_multiple_of(2) {
            turn
        } else {
            count - 1 - turn
        };
        let row = (turn + round) % count;
        match table.measure(round, row).await {
            Ok(measured) => rates[row] = measured,
            Err(error) => {
                let text = format!("`{}`: {error}", table.rows()[row].name);
                failed.get_or_insert(text);
            }
        }
    }
    let after = table.after(round).await;
    match failed {
        Some(text) => Err(text.into()),
        None => after.map(|()| rates),
    }
}

fn print(rows: &[RowName], passed: &[Vec<Measured>], rounds: usize) {
    let rates = |row: usize| passed.iter().map(move |round| round[row].rate);
    let used = |row: usize| passed.iter().map(move |round| round[row].used);
    let raw: Vec<_> = (0..rows.len()).filter(|row| rows[*row].raw).collect();
    let mut head = "| row | /s, median | min-max | µs of CPU |".to_owned();
    let mut rule = "| --- | ---: | ---: | ---: |".to_owned();
    for (number, _) in raw.iter().enumerate() {
        head += &format!(" to raw {}, median | min-max |", number + 1);
        rule += " ---: | ---: |";
    }
    println!("{head}\n{rule}");
    for (row, RowName { name, .. }) in rows.iter().enumerate() {
        let own = Spread::of(rates(row));
        let number = raw.iter().position(|known| *known == row);
        let label = number.map_or_else(String::new, |at| format!("**raw {}**: ", at + 1));
        let mut line = format!(
            "| {label}{name} | {:.0} | {:.0}-{:.0} | {:.1} |",
            own.median,
            own.min,
            own.max,
            Spread::of(used(row)).median
        );
        for base in &raw {
            let ratios = rates(row).zip(rates(*base)).map(|(own, base)| own / base);
            let ratio = Spread::of(ratios);
            line += &format!(" {:.3} | {:.3}-{:.3} |", ratio.median, ratio.min, ratio.max);
        }
        println!("{line}");
    }
    println!(
        "\n{} of {rounds} rounds passed their checks\n",
        passed.len()
    );
}

/// The middle and the ends of what was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        }
    }
}
