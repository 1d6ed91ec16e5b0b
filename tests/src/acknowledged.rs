//! What clients were told, and so what must still be there when `vmmd` has been killed and comes back: an acknowledged
//! change is there, a refused one is not, and one that nobody answered may be either way, but only until it is looked at.
//!
//! It must never be given what the daemon says as if it were known: only [`Acknowledged::settle`] looks at that.

use std::collections::{BTreeMap, BTreeSet};

/// One thing that can be desired.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// A unikernel, by its full name.
    Unikernel(String),
    /// The policy of a path.
    Policy(String),
    /// A block device, by its full name.
    Block(String),
}

/// What something is, in words that tell any two states of it apart; nothing where it is not.
pub type Value = Option<String>;

/// What is known of one thing.
#[derive(Clone, Debug)]
struct Fact {
    may_be: BTreeSet<Value>,
    /// What it is when it has become what it was asked to, as long as nobody has answered.
    asked: Option<BTreeSet<Value>>,
    /// Grows with all that could have disturbed it.
    disturbed: u64,
}

impl Default for Fact {
    fn default() -> Self {
        Self { may_be: BTreeSet::from([None]), asked: None, disturbed: 0 }
    }
}

/// All that is known.
#[derive(Clone, Default, Debug)]
pub struct Acknowledged {
    facts: BTreeMap<Subject, Fact>,
}

impl Acknowledged {
    /// Somebody asks for this. One thing is asked for by one client at a time.
    pub fn ask(&mut self, subject: &Subject, wish: Value) {
        self.ask_any(subject, |_| BTreeSet::from([wish]));
    }

    /// Somebody asks for something after which it is what it was.
    pub fn ask_the_same(&mut self, subject: &Subject) {
        self.ask_any(subject, BTreeSet::clone);
    }

    fn ask_any(&mut self, subject: &Subject, wish: impl FnOnce(&BTreeSet<Value>) -> BTreeSet<Value>) {
        let fact = self.fact(subject);
        assert!(fact.asked.is_none(), "{subject:?} is asked for twice");
        fact.asked = Some(wish(&fact.may_be));
    }

    /// It was done.
    pub fn done(&mut self, subject: &Subject) {
        let fact = self.fact(subject);
        let Some(wish) = fact.asked.take() else { panic!("{subject:?} was not asked for") };
        fact.may_be = wish;
    }

    /// It was refused.
    pub fn refused(&mut self, subject: &Subject) {
        self.fact(subject).asked = None;
    }

    /// Nobody answered.
    pub fn unanswered(&mut self, subject: &Subject) {
        let fact = self.fact(subject);
        let Some(wish) = fact.asked.take() else { panic!("{subject:?} was not asked for") };
        fact.may_be.extend(wish);
    }

    /// Its process was ended: it is gone, or started again.
    pub fn may_end(&mut self, subject: &Subject) {
        self.fact(subject).may_be.insert(None);
    }

    /// Each unikernel that certainly runs and that nobody asks anything of, with a number that stays the same as long as it
    /// is left in peace.
    #[must_use]
    pub fn in_peace(&self) -> BTreeMap<String, u64> {
        let quiet = |(subject, fact): (&Subject, &Fact)| match subject {
            Subject::Unikernel(name) if fact.asked.is_none() && !fact.may_be.contains(&None) => {
                Some((name.clone(), fact.disturbed))
            }
            _ => None,
        };
        self.facts.iter().filter_map(quiet).collect()
    }

    /// What something certainly is.
    #[must_use]
    pub fn certain(&self, subject: &Subject) -> Option<&str> {
        let mut may_be = self.facts.get(subject)?.may_be.iter();
        may_be.next().filter(|_| may_be.next().is_none())?.as_deref()
    }

    /// Compares with what was found, and from here on knows that.
    ///
    /// # Errors
    /// What is not as it was acknowledged.
    pub fn settle(&mut self, found: &BTreeMap<Subject, String>) -> Result<(), String> {
        let subjects: BTreeSet<Subject> = self.facts.keys().chain(found.keys()).cloned().collect();
        for subject in subjects {
            let value = found.get(&subject).cloned();
            let fact = self.fact(&subject);
            if fact.asked.is_some() || !fact.may_be.contains(&value) {
                return Err(format!("{subject:?} is {value:?}, and known was {fact:?}"));
            }
            fact.may_be = BTreeSet::from([value]);
        }
        Ok(())
    }

    fn fact(&mut self, subject: &Subject) -> &mut Fact {
        let fact = self.facts.entry(subject.clone()).or_default();
        fact.disturbed += 1;
        fact
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: Option<&str>) -> BTreeMap<Subject, String> {
        value.map(|value| (subject(), value.to_owned())).into_iter().collect()
    }

    fn subject() -> Subject {
        Subject::Unikernel("p:a".into())
    }

    #[test]
    fn what_was_answered_is_so_and_what_was_not_is_either_way_once() {
        let mut known = Acknowledged::default();
        known.ask(&subject(), Some("one".into()));
        assert!(known.in_peace().is_empty());
        known.done(&subject());
        assert!(known.clone().settle(&found(None)).is_err());
        assert!(known.clone().settle(&found(Some("two"))).is_err());
        known.settle(&found(Some("one"))).unwrap();

        known.ask(&subject(), None);
        assert!(known.clone().settle(&found(Some("one"))).is_err(), "it is still being asked for");
        known.refused(&subject());
        assert!(known.clone().settle(&found(None)).is_err());

        known.ask(&subject(), None);
        known.unanswered(&subject());
        known.clone().settle(&found(Some("one"))).unwrap();
        known.settle(&found(None)).unwrap();
        assert!(known.settle(&found(Some("one"))).is_err(), "it was gone, and nobody asked for it again");
        assert!(known.settle(&BTreeMap::from([(Subject::Block("p:d".into()), "1".into())])).is_err());
    }

    #[test]
    fn peace_ends_with_the_first_question_and_with_a_disturbance() {
        let mut known = Acknowledged::default();
        known.ask(&subject(), Some("one".into()));
        known.done(&subject());
        let before = known.in_peace();
        assert_eq!(before, known.in_peace());
        known.ask(&subject(), Some("one".into()));
        known.refused(&subject());
        assert_ne!(before, known.in_peace());
        known.ask_the_same(&subject());
        assert!(known.in_peace().is_empty());
        known.unanswered(&subject());
        assert_eq!((known.in_peace().len(), known.certain(&subject())), (1, Some("one")));
        known.may_end(&subject());
        assert_eq!((known.in_peace().len(), known.certain(&subject())), (0, None));
        known.settle(&found(None)).unwrap();
    }
}
