//! Which heads of a numbered text begin its items.
//!
//! Answers have lists of their own, and models forget to indent them. Such a list begins with 1 and has at least two items;
//! the items' own heads are the increasing sequence from 1 to the last. Where more than one sequence can be it, the items
//! that differ are [`Flaw::Double`], and so are those that go on counting behind them.

use super::Flaw;
use super::heads::Head;

/// An item, by places in the list of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub head: usize,
    /// The head that ends it; None = it is the last one.
    pub next: Option<usize>,
    /// The item that should follow is not there, and may be in this one without its head.
    pub is_before_gap: bool,
}

type Items = Vec<Result<Span, Flaw>>;

/// One entry for each number from 1 to `count`.
pub fn choose(heads: &[Head], count: usize) -> Items {
    let places = match of_one_style(heads, count) {
        Some(places) => places,
        None => (0..heads.len()).collect(),
    };
    let numbers: Vec<usize> = places.iter().filter_map(|place| heads.get(*place)).map(|head| head.number).collect();
    let sequence = Sequence::new(&numbers, count);
    let items = if sequence.is_complete() {
        sequence.whole()
    } else if sequence.times(1) > 1 {
        sequence.with_lists()
    } else {
        sequence.with_gaps()
    };
    let place = |index: usize| places.get(index).copied().unwrap_or(heads.len());
    let span = |span: Span| Span { head: place(span.head), next: span.next.map(place), ..span };
    items.into_iter().map(|item| item.map(span)).collect()
}

/// The heads of the style of the first, if they are each number once and no other style can be the items'.
fn of_one_style(heads: &[Head], count: usize) -> Option<Vec<usize>> {
    let style = heads.first()?.style;
    let of = |wanted| heads.iter().enumerate().filter(move |(_, head)| head.style == wanted);
    let is_complete = |wanted| {
        let mut numbers: Vec<usize> = of(wanted).map(|(_, head)| head.number).collect();
        numbers.sort_unstable();
        numbers.into_iter().eq(1..=count)
    };
    let mut others: Vec<_> = heads.iter().map(|head| head.style).filter(|other| *other != style).collect();
    others.sort_unstable();
    others.dedup();
    let is_rival = |other| is_complete(other) || (style.is_plain() && !other.is_plain());
    let is_theirs = is_complete(style) && !others.into_iter().any(is_rival);
    is_theirs.then(|| of(style).map(|(place, _)| place).collect())
}

struct Sequence<'a> {
    numbers: &'a [usize],
    /// Of each number from 1 on, where it stands.
    places: Vec<Vec<usize>>,
}

impl<'a> Sequence<'a> {
    fn new(numbers: &'a [usize], count: usize) -> Self {
        let mut places = vec![Vec::new(); count];
        for (place, number) in numbers.iter().enumerate() {
            if let Some(places) = number.checked_sub(1).and_then(|index| places.get_mut(index)) {
                places.push(place);
            }
        }
        Self { numbers, places }
    }

    fn times(&self, number: usize) -> usize {
        number.checked_sub(1).and_then(|index| self.places.get(index)).map_or(0, Vec::len)
    }

    /// Each number once, and no others; in any order.
    fn is_complete(&self) -> bool {
        self.numbers.len() == self.places.len() && self.places.iter().all(|places| places.len() == 1)
    }

    fn whole(&self) -> Items {
        let span = |head: usize| {
            let next = (head + 1 < self.numbers.len()).then_some(head + 1);
            Span { head, next, is_before_gap: false }
        };
        self.places.iter().map(|places| places.first().map(|head| span(*head)).ok_or(Flaw::Missing)).collect()
    }

    /// Nothing is taken.
    fn nothing(&self) -> Items {
        self.places.iter().map(|places| Err(if places.is_empty() { Flaw::Missing } else { Flaw::Double })).collect()
    }

    /// No list begins within an answer: every head ends the item before it.
    fn with_gaps(&self) -> Items {
        if !self.numbers.is_sorted() {
            return self.nothing();
        }
        let count = self.places.len();
        let item = |(index, places): (usize, &Vec<usize>)| {
            let &[head] = places.as_slice() else {
                return Err(if places.is_empty() { Flaw::Missing } else { Flaw::Double });
            };
            let number = index + 1;
            let following = self.numbers.get(head + 1).copied();
            match following {
                // Nobody asked for it: it may be a part of this one.
                Some(following) if following > count => Err(Flaw::Double),
                _ => {
                    let is_before_gap = following.map_or(number < count, |following| following > number + 1);
                    Ok(Span { head, next: following.map(|_| head + 1), is_before_gap })
                }
            }
        };
        self.places.iter().enumerate().map(item).collect()
    }

    /// Lists begin within answers, or the answers are given again.
    fn with_lists(&self) -> Items {
        let (Some(first), Some(last)) = (self.first(), self.last()) else { return self.nothing() };
        let count = self.places.len();
        let mut is_doubtful: Vec<bool> = first.iter().zip(&last).map(|(first, last)| first != last).collect();
        // A list within an answer would go on counting like that.
        for index in 1..count {
            let before = first.get(index).and_then(|head| self.numbers.get(head.checked_sub(1)?));
            if before == Some(&index) && is_doubtful.get(index - 1) == Some(&true) {
                mark(&mut is_doubtful, index);
            }
        }
        // Where an item begins is where the one before it ends.
        for index in 1..count {
            if first.get(index) != last.get(index) {
                mark(&mut is_doubtful, index - 1);
            }
        }
        let ends = first.iter().skip(1).copied().chain([self.numbers.len()]);
        for (index, (head, end)) in first.iter().zip(ends).enumerate() {
            let within = self.numbers.get(head + 1..end).unwrap_or_default();
            // Behind the last answer a list may as well be the answers once more.
            if !within.is_empty() && (index + 1 == count || !are_lists(within)) {
                mark(&mut is_doubtful, index);
                within
                    .iter()
                    .filter_map(|number| number.checked_sub(1))
                    .for_each(|index| mark(&mut is_doubtful, index));
            }
        }
        let before = self.numbers.get(..first.first().copied().unwrap_or(0)).unwrap_or_default();
        before.iter().filter_map(|number| number.checked_sub(1)).for_each(|index| mark(&mut is_doubtful, index));
        let item = |(index, is_doubtful): (usize, bool)| match first.get(index) {
            Some(&head) if !is_doubtful => Ok(Span { head, next: first.get(index + 1).copied(), is_before_gap: false }),
            _ => Err(Flaw::Double),
        };
        is_doubtful.into_iter().enumerate().map(item).collect()
    }

    /// The earliest places of an increasing sequence of all numbers. None: there is none.
    fn first(&self) -> Option<Vec<usize>> {
        let mut from = 0;
        self.places
            .iter()
            .map(|places| {
                let place = *places.get(places.partition_point(|place| *place < from))?;
                from = place + 1;
                Some(place)
            })
            .collect()
    }

    /// The latest ones.
    fn last(&self) -> Option<Vec<usize>> {
        let mut to = self.numbers.len();
        let mut last = Vec::with_capacity(self.places.len());
        for places in self.places.iter().rev() {
            let place = *places.get(places.partition_point(|place| *place < to).checked_sub(1)?)?;
            to = place;
            last.push(place);
        }
        last.reverse();
        Some(last)
    }
}

fn mark(is_doubtful: &mut [bool], index: usize) {
    if let Some(doubt) = is_doubtful.get_mut(index) {
        *doubt = true;
    }
}

/// Whether numbers are lists, one after the other: 1, 2, 3, 1, 2.
fn are_lists(numbers: &[usize]) -> bool {
    let begins = numbers.iter().zip(numbers.iter().skip(1)).all(|(one, next)| *next == one + 1 || *next == 1);
    let is_single = |pair: &[usize]| pair == [1, 1];
    begins && numbers.first() == Some(&1) && numbers.last() != Some(&1) && !numbers.windows(2).any(is_single)
}
