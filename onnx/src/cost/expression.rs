//! Sizes and costs that depend on open dimensions: polynomials in their names, written out for people.

use std::collections::BTreeMap;
use std::fmt;

/// A polynomial with integer coefficients. Two that are equal term by term are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expression {
    /// Coefficients by the sorted factors of a term; no coefficient is zero.
    terms: BTreeMap<Vec<Factor>, i128>,
}

/// What a term multiplies beside its coefficient.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Factor {
    Symbol(String),
    /// The quotient, rounded down.
    Floor(Expression, i128),
    Least(Vec<Expression>),
    Most(Vec<Expression>),
}

impl From<u64> for Expression {
    fn from(value: u64) -> Self {
        Self::constant(i128::from(value))
    }
}

impl Expression {
    /// A number.
    pub fn constant(value: i128) -> Self {
        Self { terms: BTreeMap::from([(Vec::new(), value)]) }.tidy()
    }

    /// An open dimension.
    pub fn symbol(name: &str) -> Self {
        Self::factor(Factor::Symbol(name.to_owned()))
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        for (factors, coefficient) in &other.terms {
            let known = sum.terms.entry(factors.clone()).or_default();
            *known = known.saturating_add(*coefficient);
        }
        sum.tidy()
    }

    /// This one without the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&other.times(&Self::constant(-1)))
    }

    /// The product of two.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        let mut product = Self::default();
        for (left, one) in &self.terms {
            for (right, another) in &other.terms {
                let mut factors = [left.as_slice(), right.as_slice()].concat();
                factors.sort();
                let known = product.terms.entry(factors).or_default();
                *known = known.saturating_add(one.saturating_mul(*another));
            }
        }
        product.tidy()
    }

    /// The quotient by a positive number, rounded down.
    #[must_use]
    pub fn floor(&self, divisor: i128) -> Self {
        if divisor < 1 {
            return self.clone();
        }
        if self.terms.values().all(|coefficient| coefficient % divisor == 0) {
            let mut quotient = self.clone();
            quotient.terms.values_mut().for_each(|coefficient| *coefficient /= divisor);
            return quotient;
        }
        Self::factor(Factor::Floor(self.clone(), divisor))
    }

    /// The largest, for all sizes of the open dimensions from one on, as far as that can be told term by term.
    pub fn most(all: Vec<Self>) -> Self {
        Self::extreme(all, |one, other| one.covers(other), Factor::Most)
    }

    /// The smallest, for all sizes of the open dimensions from one on, as far as that can be told term by term.
    pub fn least(all: Vec<Self>) -> Self {
        Self::extreme(all, |one, other| other.covers(one), Factor::Least)
    }

    fn extreme(
        all: Vec<Self>,
        beats: impl Fn(&Self, &Self) -> bool,
        unsettled: impl Fn(Vec<Self>) -> Factor,
    ) -> Self {
        let mut kept: Vec<Self> = Vec::new();
        for one in all {
            if kept.iter().any(|other| beats(other, &one)) {
                continue;
            }
            kept.retain(|other| !beats(&one, other));
            kept.push(one);
        }
        kept.sort();
        match kept.len() {
            0 => Self::default(),
            1 => kept.swap_remove(0),
            _ => Self::factor(unsettled(kept)),
        }
    }

    /// Whether it is at least the other for all sizes from one on: in terms of how much each size exceeds one, no
    /// coefficient of the difference is negative.
    fn covers(&self, other: &Self) -> bool {
        let excess = self.minus(other).terms.into_iter().fold(
            Self::default(),
            |sum, (factors, coefficient)| {
                let term = factors.into_iter().fold(Self::constant(coefficient), |term, factor| {
                    let one = matches!(factor, Factor::Symbol(_)).then_some(Self::constant(1));
                    term.times(&Self::factor(factor).plus(&one.unwrap_or_default()))
                });
                sum.plus(&term)
            },
        );
        excess.terms.values().all(|coefficient| *coefficient >= 0)
    }

    /// The number that it is, where no dimension is open.
    pub fn number(&self) -> Option<i128> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Vec::new()).copied(),
            _ => None,
        }
    }

    /// Its value for these sizes; `None` where one is missing.
    pub fn value(&self, sizes: &BTreeMap<String, i128>) -> Option<i128> {
        self.terms.iter().try_fold(0i128, |sum, (factors, coefficient)| {
            let term = factors.iter().try_fold(*coefficient, |product, factor| {
                Some(product.saturating_mul(factor.value(sizes)?))
            });
            Some(sum.saturating_add(term?))
        })
    }

    fn factor(factor: Factor) -> Self {
        Self { terms: BTreeMap::from([(vec![factor], 1)]) }
    }

    fn tidy(mut self) -> Self {
        self.terms.retain(|_, coefficient| *coefficient != 0);
        self
    }
}

impl Factor {
    fn value(&self, sizes: &BTreeMap<String, i128>) -> Option<i128> {
        let all = |list: &[Expression]| {
            list.iter().map(|one| one.value(sizes)).collect::<Option<Vec<i128>>>()
        };
        match self {
            Self::Symbol(name) => sizes.get(name).copied(),
            Self::Floor(dividend, divisor) => Some(dividend.value(sizes)?.div_euclid(*divisor)),
            Self::Least(list) => all(list)?.into_iter().min(),
            Self::Most(list) => all(list)?.into_iter().max(),
        }
    }
}

impl fmt::Display for Expression {
    /// The longest terms first, as people write polynomials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        let mut terms: Vec<_> = self.terms.iter().collect();
        terms.sort_by_key(|(factors, _)| std::cmp::Reverse(factors.len()));
        for (index, (factors, coefficient)) in terms.into_iter().enumerate() {
            match (index, *coefficient < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            let size = coefficient.unsigned_abs();
            let mut parts: Vec<String> = factors.iter().map(ToString::to_string).collect();
            if size != 1 || parts.is_empty() {
                parts.insert(0, size.to_string());
            }
            f.write_str(&parts.join("·"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |list: &[Expression]| {
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Symbol(name) => f.write_str(name),
            Self::Floor(dividend, divisor) => write!(f, "⌊({dividend})/{divisor}⌋"),
            Self::Least(list) => write!(f, "min({})", joined(list)),
            Self::Most(list) => write!(f, "max({})", joined(list)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n() -> Expression {
        Expression::symbol("n")
    }

    fn number(value: i128) -> Expression {
        Expression::constant(value)
    }

    #[test]
    fn equal_polynomials_are_equal_and_read_well() {
        let square = n().plus(&number(1)).times(&n().plus(&number(1)));
        assert_eq!(square, n().times(&n()).plus(&n().times(&number(2))).plus(&number(1)));
        assert_eq!(square.to_string(), "n·n + 2·n + 1");
        assert_eq!(n().minus(&n()).to_string(), "0");
        assert_eq!(number(-3).plus(&n()).to_string(), "n - 3");
        assert_eq!(n().times(&number(4)).floor(2), n().times(&number(2)));
        assert_eq!(n().plus(&number(1)).floor(2).to_string(), "⌊(n + 1)/2⌋");
    }

    #[test]
    fn the_largest_is_settled_where_it_does_not_depend_on_sizes() {
        let double = n().times(&number(2));
        assert_eq!(Expression::most(vec![n(), double.clone(), n()]), double);
        assert_eq!(Expression::least(vec![n(), double]), n());
        let open = Expression::most(vec![n(), number(5)]);
        assert_eq!(open.to_string(), "max(5, n)");
        let at = |size| open.value(&BTreeMap::from([("n".to_owned(), size)]));
        assert_eq!((at(3), at(8), open.value(&BTreeMap::new())), (Some(5), Some(8), None));
    }
}
