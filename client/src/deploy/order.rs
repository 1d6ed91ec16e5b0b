//! Who comes before whom: unikernels behind those that they wait for, as near to the order of the manifest as that allows.

use fulmar_core::name::Name;

use super::manifest::UnikernelWish;
use super::section::Faults;

/// How far a unikernel has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unseen,
    Waits,
    Placed,
}

/// Sorts them. Whom there is not, a circle, and a link without a bridge are faults.
pub(super) fn sort(unikernels: Vec<UnikernelWish>, faults: &mut Faults<'_>) -> Vec<UnikernelWish> {
    for unikernel in &unikernels {
        check(unikernel, &unikernels, faults);
    }
    let mut marks = vec![Mark::Unseen; unikernels.len()];
    let mut order = Vec::new();
    // Who is being placed, and which of those that it waits for comes next.
    let mut way: Vec<(usize, usize)> = Vec::new();
    for start in 0..unikernels.len() {
        way.push((start, 0));
        while let Some((index, next)) = way.pop() {
            let (Some(unikernel), Some(mark)) = (unikernels.get(index), marks.get_mut(index)) else { continue };
            match (*mark, next) {
                (Mark::Placed, _) => continue,
                (Mark::Waits, 0) => {
                    let circle = way.iter().skip_while(|(other, _)| *other != index);
                    let names: Vec<&str> =
                        circle.filter_map(|(other, _)| Some(unikernels.get(*other)?.name.as_str())).collect();
                    let text = format!("a circle: {} after {}: leave out one", names.join(" after "), unikernel.name);
                    faults.push(unikernel.line, text);
                    continue;
                }
                _ => *mark = Mark::Waits,
            }
            if let Some((_, name)) = unikernel.after.get(next) {
                way.push((index, next + 1));
                way.extend(unikernels.iter().position(|it| it.name == *name).map(|other| (other, 0)));
            } else {
                *mark = Mark::Placed;
                order.push(index);
            }
        }
    }
    let mut places: Vec<Option<UnikernelWish>> = unikernels.into_iter().map(Some).collect();
    order.into_iter().filter_map(|index| places.get_mut(index)?.take()).collect()
}

fn check(unikernel: &UnikernelWish, all: &[UnikernelWish], faults: &mut Faults<'_>) {
    let find = |name: &Name| all.iter().find(|it| it.name == *name);
    let missing = unikernel.after.iter().filter(|(_, name)| find(name).is_none());
    for (line, name) in missing {
        let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
        let text = format!(
            "unikernel {}: it waits for {name}, which is not in this manifest: there are {}",
            unikernel.name,
            names.join(", ")
        );
        faults.push(*line, text);
    }
    for (line, name) in &unikernel.links {
        let Some(other) = find(name) else { continue };
        let own: Vec<&str> = unikernel.settings.bridges().collect();
        let theirs: Vec<&str> = other.settings.bridges().collect();
        if !own.iter().any(|bridge| theirs.contains(bridge)) {
            let said = |bridges: Vec<&str>| if bridges.is_empty() { "none".to_owned() } else { bridges.join(", ") };
            let text = format!(
                "unikernel {}: it is linked with {name} and they share no bridge: it has {}, {name} has {}",
                unikernel.name,
                said(own),
                said(theirs)
            );
            faults.push(*line, text);
        }
    }
}
