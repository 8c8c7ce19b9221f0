//! Where the cells of a table stand: which columns a row has already, and which of them cells of earlier rows take.

/// Columns and rows that a cell may take, and columns that are kept in mind.
const MOST_COLUMNS: u64 = 20;
const MOST_ROWS: u64 = 1_000;
const MOST_CELLS: usize = 1_000;

#[derive(Default)]
pub struct Cells {
    is_in_row: bool,
    /// Columns of the row so far.
    columns: usize,
    /// Columns that the last cell takes besides its own.
    wide: usize,
    /// For how many rows more a cell of an earlier row takes each column.
    tall: Vec<usize>,
}

/// What is written before a cell.
pub struct Before {
    /// The row's first column is taken by an earlier row, and empty here.
    pub is_first_empty: bool,
    pub bars: usize,
}

impl Cells {
    pub fn is_in_row(&self) -> bool {
        self.is_in_row
    }

    pub fn begin_table(&mut self) {
        *self = Self::default();
    }

    pub fn begin_row(&mut self) {
        self.is_in_row = true;
    }

    /// Something begins here that needs lines of its own. Its cell is still one.
    pub fn leave(&mut self) {
        self.is_in_row = false;
    }

    /// Cells of earlier rows that this row does not reach take their columns in it all the same.
    pub fn end_row(&mut self) {
        // Its end may be said, and is understood where another begins.
        if !self.is_in_row && self.columns == 0 {
            return;
        }
        self.tall.iter_mut().skip(self.columns).for_each(|rows| *rows = rows.saturating_sub(1));
        (self.is_in_row, self.columns, self.wide) = (false, 0, 0);
    }

    /// A cell that takes so many columns and rows.
    pub fn next(&mut self, columns: Option<u64>, rows: Option<u64>) -> Before {
        let mut column = self.columns;
        // What a cell of this row, or of an earlier one, takes besides is there, and empty.
        let mut bars = std::mem::take(&mut self.wide);
        let mut is_first_empty = false;
        while let Some(rows) = self.tall.get_mut(column).filter(|rows| **rows > 0) {
            *rows -= 1;
            match column {
                0 => is_first_empty = true,
                _ => bars += 1,
            }
            column += 1;
        }
        bars += usize::from(column > 0);
        let columns = columns.unwrap_or(1).clamp(1, MOST_COLUMNS) as usize;
        let rows = rows.unwrap_or(1).clamp(1, MOST_ROWS) as usize;
        let end = (column + columns).min(MOST_CELLS);
        if rows > 1 && column < end {
            self.tall.resize(self.tall.len().max(end), 0);
            self.tall.iter_mut().take(end).skip(column).for_each(|column| *column = rows - 1);
        }
        self.wide = columns - 1;
        (self.is_in_row, self.columns) = (true, column + columns);
        Before { is_first_empty, bars }
    }
}
