//! Maps the type of a resource parameter to how it is injected.

use super::{InjectMut, InjectRef};
use std::marker::PhantomData;

/// A parameter `&T`.
///
/// A projection rather than the type itself: so the compiler reports a `T` that is not a resource where the
/// user wrote `T`.
pub type Ref<T> = <T as ByRef>::Param;

/// A parameter `&mut T`: see [`Ref`].
pub type RefMut<T> = <T as ByMut>::Param;

/// A type that can be a parameter `&Self`.
pub trait ByRef {
    /// How it is injected.
    type Param;
}

#[diagnostic::do_not_recommend]
impl<T: InjectRef> ByRef for T {
    type Param = RefParam<T>;
}

/// A type that can be a parameter `&mut Self`.
pub trait ByMut {
    /// How it is injected.
    type Param;
}

#[diagnostic::do_not_recommend]
impl<T: InjectMut> ByMut for T {
    type Param = MutParam<T>;
}

/// A parameter `&T`.
#[derive(Debug)]
pub struct RefParam<T>(PhantomData<fn() -> T>);

/// A parameter `&mut T`.
#[derive(Debug)]
pub struct MutParam<T>(PhantomData<fn() -> T>);
