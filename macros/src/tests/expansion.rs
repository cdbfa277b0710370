//! One snapshot per key and per kind of signature.

use expect_test::expect;

use crate::tests::{expand, tokens};
use crate::transform;

/// The configuration in the expansion for `args`, without the rest.
fn site(args: &str) -> String {
    let output = expand(
        args,
        "async fn handler(event: E, db: &PgPool) -> Result<(), Error> {}",
    );
    let site = output
        .split_once("static __DB_HANDLER_SITE")
        .and_then(|(_, rest)| rest.split_once("::db_handler::__private::inventory"))
        .map(|(site, _)| format!("static __DB_HANDLER_SITE{}\n", site.trim_end()));
    site.unwrap_or(output)
}

#[test]
fn full() {
    expect![[r#"
        /// Docs stay.
        #[tracing::instrument(skip_all)]
        pub async fn create_order(
            &self,
            event: LambdaEvent<NewOrder>,
        ) -> Result<Receipt, Error> {
            static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "create_order",
                &[
                    ::db_handler::__private::Config::new()
                        .max(2)
                        .acquire_ms(3000)
                        .close(::db_handler::__private::Close::Always),
                    ::db_handler::__private::Config::new()
                        .max(2)
                        .acquire_ms(3000)
                        .close(::db_handler::__private::Close::Always),
                ],
            );
            return ::db_handler::__private::handle::<
                (
                    ::db_handler::__private::Ref<PgPool>,
                    ::db_handler::__private::RefMut<PgConnection>,
                ),
                _,
                _,
                _,
                _,
            >(
                    &__DB_HANDLER_SITE,
                    ::db_handler::__private::signature::<
                        LambdaEvent<NewOrder>,
                        Result<Receipt, Error>,
                    >(),
                    event,
                    move |__dbh_event, (__dbh_0, mut __dbh_1)| async move {
                        let __dbh_once = ::core::option::Option::None::<&mut ()>;
                        ::core::convert::identity(async move |
                                LambdaEvent { payload, .. }: LambdaEvent<NewOrder>,
                                db: &PgPool,
                                conn: &mut PgConnection,
                            | -> Result<Receipt, Error> {
                                #[allow(unreachable_code, clippy::all)]
                                if false {
                                    ::core::mem::drop(__dbh_once);
                                    let __dbh_output: Result<Receipt, Error> = loop {};
                                    return __dbh_output;
                                }
                                db.query().await
                            })(__dbh_event, &*__dbh_0, &mut *__dbh_1)
                            .await
                    },
                )
                .await;
        }
    "#]].assert_eq(&expand(
        "pool(max = 2, acquire_ms = 3000), close = \"always\"",
        "/// Docs stay.
        #[tracing::instrument(skip_all)]
        pub async fn create_order(&self, LambdaEvent { payload, .. }: LambdaEvent<NewOrder>, db: &PgPool, conn: &mut PgConnection) -> Result<Receipt, Error> { db.query().await }",
    ));
}

#[test]
fn registered() {
    expect![[r#"
        #[allow(unused)]
        async fn handler(event: E) -> Result<(), Error> {
            static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new()],
            );
            ::db_handler::__private::inventory::submit! {
                ::db_handler::__private::Registered::new:: < (::db_handler::__private::Ref <
                PgPool >,) > (& __DB_HANDLER_SITE)
            }
            return ::db_handler::__private::handle::<
                (::db_handler::__private::Ref<PgPool>,),
                _,
                _,
                _,
                _,
            >(
                    &__DB_HANDLER_SITE,
                    ::db_handler::__private::signature::<E, Result<(), Error>>(),
                    event,
                    move |__dbh_event, (__dbh_0,)| async move {
                        let __dbh_once = ::core::option::Option::None::<&mut ()>;
                        ::core::convert::identity(async move |
                                _event: E,
                                db: &PgPool,
                            | -> Result<(), Error> {
                                #[allow(unreachable_code, clippy::all)]
                                if false {
                                    ::core::mem::drop(__dbh_once);
                                    let __dbh_output: Result<(), Error> = loop {};
                                    return __dbh_output;
                                }
                                Ok(())
                            })(__dbh_event, &*__dbh_0)
                            .await
                    },
                )
                .await;
        }
    "#]].assert_eq(&expand(
        "",
        "async fn handler(_event: E, db: &PgPool) -> Result<(), Error> { #![allow(unused)] Ok(()) }",
    ));
}

#[test]
fn key_env() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new().env("ORDERS_URL")],
            );
    "#]].assert_eq(&site("env = \"ORDERS_URL\""));
}

#[test]
fn key_pool() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[
                    ::db_handler::__private::Config::new()
                        .max(4)
                        .min(1)
                        .idle_ms(60_000)
                        .acquire_ms(3_000)
                        .lifetime_ms(LIFE)
                        .close(::db_handler::__private::Close::Never),
                ],
            );
    "#]].assert_eq(&site("pool(max = 4, min = 1, idle_ms = 60_000, acquire_ms = 3_000, lifetime_ms = LIFE), close = \"never\""));
}

#[test]
fn key_close() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[
                    ::db_handler::__private::Config::new()
                        .close(::db_handler::__private::Close::OnError),
                ],
            );
    "#]].assert_eq(&site("close = \"on_error\""));
}

#[test]
fn key_check() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new().trust_ms(0).ping_ms(PING)],
            );
    "#]]
    .assert_eq(&site("check(trust_ms = 0, ping_ms = PING)"));
}

#[test]
fn key_deadline() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new().reserve_ms(500)],
            );
    "#]]
    .assert_eq(&site("deadline(reserve_ms = 500)"));
}

#[test]
fn key_background() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[
                    ::db_handler::__private::Config::new()
                        .background(::db_handler::__private::BackgroundPolicy::Abort),
                ],
            );
    "#]]
    .assert_eq(&site("background = \"abort\""));
}

#[test]
fn key_connect() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[
                    ::db_handler::__private::Config::new()
                        .connect(::db_handler::__private::Connect::Eager),
                ],
            );
    "#]].assert_eq(&site("connect = \"eager\""));
}

#[test]
fn key_budget_is_checked_here_or_by_the_compiler() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new().instances(10)],
            );
    "#]].assert_eq(&site("budget(instances = 10, connections = 100)"));
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new().instances(INSTANCES)],
            );
            const _: () = ::db_handler::__private::check_budget(2, INSTANCES, 100, 0.8);
    "#]].assert_eq(&site("budget(instances = INSTANCES, connections = 100)"));
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new().max(MAX).instances(1)],
            );
            const _: () = ::db_handler::__private::check_budget(MAX, 1, 100, 1.0);
    "#]].assert_eq(&site(
        "pool(max = MAX), budget(instances = 1, connections = 100, share = 1)",
    ));
}

#[test]
fn key_min_is_checked_here_or_by_the_compiler() {
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[
                    ::db_handler::__private::Config::new()
                        .max(3)
                        .min(MIN)
                        .close(::db_handler::__private::Close::Never),
                ],
            );
            const _: () = ::db_handler::__private::check_min(
                MIN,
                3,
                ::db_handler::__private::Close::Never,
            );
    "#]].assert_eq(&site("pool(min = MIN, max = 3), close = \"never\""));
    expect![[r#"
        static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[
                    ::db_handler::__private::Config::new()
                        .max(MAX)
                        .min(1)
                        .close(::db_handler::__private::Close::Never),
                ],
            );
            const _: () = ::db_handler::__private::check_min(
                1,
                MAX,
                ::db_handler::__private::Close::Never,
            );
    "#]].assert_eq(&site("pool(min = 1, max = MAX), close = \"never\""));
}

#[test]
fn key_crate() {
    expect![[r#"
        async fn handler(event: E) -> Result<(), Error> {
            static __DB_HANDLER_SITE: crate::facade::__private::Site = crate::facade::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[crate::facade::__private::Config::new()],
            );
            crate::facade::__private::inventory::submit! {
                crate ::facade::__private::Registered::new:: < (crate ::facade::__private::Ref <
                PgPool >,) > (& __DB_HANDLER_SITE)
            }
            return crate::facade::__private::handle::<
                (crate::facade::__private::Ref<PgPool>,),
                _,
                _,
                _,
                _,
            >(
                    &__DB_HANDLER_SITE,
                    crate::facade::__private::signature::<E, Result<(), Error>>(),
                    event,
                    move |__dbh_event, (__dbh_0,)| async move {
                        let __dbh_once = ::core::option::Option::None::<&mut ()>;
                        ::core::convert::identity(async move |
                                #[allow(clippy::shadow_unrelated)]
                                event: E,
                                db: &PgPool,
                            | -> Result<(), Error> {
                                #[allow(unreachable_code, clippy::all)]
                                if false {
                                    ::core::mem::drop(__dbh_once);
                                    let __dbh_output: Result<(), Error> = loop {};
                                    return __dbh_output;
                                }
                            })(__dbh_event, &*__dbh_0)
                            .await
                    },
                )
                .await;
        }
    "#]].assert_eq(&site("crate = crate::facade"));
}

#[test]
fn parameters_override_the_attribute() {
    expect![[r#"
        async fn handler(event: E) -> Result<(), Error> {
            static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[
                    ::db_handler::__private::Config::new()
                        .max(MAX)
                        .acquire_ms(500)
                        .instances(1)
                        .close(::db_handler::__private::Close::Never),
                    ::db_handler::__private::Config::new()
                        .env("REPLICA_URL")
                        .max(1)
                        .acquire_ms(500)
                        .instances(1)
                        .close(::db_handler::__private::Close::Always),
                    ::db_handler::__private::Config::new()
                        .max(MAX)
                        .acquire_ms(500)
                        .instances(1)
                        .close(::db_handler::__private::Close::Never),
                ],
            );
            const _: () = ::db_handler::__private::check_budget(
                ::core::primitive::u32::saturating_add(MAX, MAX),
                1,
                100,
                0.8,
            );
            ::db_handler::__private::inventory::submit! {
                ::db_handler::__private::Registered::new:: < (::db_handler::__private::Ref <
                PgPool >, ::db_handler::__private::Ref < PgPool >, ::db_handler::__private::Ref <
                PgPool >,) > (& __DB_HANDLER_SITE)
            }
            return ::db_handler::__private::handle::<
                (
                    ::db_handler::__private::Ref<PgPool>,
                    ::db_handler::__private::Ref<PgPool>,
                    ::db_handler::__private::Ref<PgPool>,
                ),
                _,
                _,
                _,
                _,
            >(
                    &__DB_HANDLER_SITE,
                    ::db_handler::__private::signature::<E, Result<(), Error>>(),
                    event,
                    move |__dbh_event, (__dbh_0, __dbh_1, __dbh_2)| async move {
                        let __dbh_once = ::core::option::Option::None::<&mut ()>;
                        ::core::convert::identity(async move |
                                #[allow(clippy::shadow_unrelated)]
                                event: E,
                                a: &PgPool,
                                b: &PgPool,
                                c: &PgPool,
                            | -> Result<(), Error> {
                                #[allow(unreachable_code, clippy::all)]
                                if false {
                                    ::core::mem::drop(__dbh_once);
                                    let __dbh_output: Result<(), Error> = loop {};
                                    return __dbh_output;
                                }
                            })(__dbh_event, &*__dbh_0, &*__dbh_1, &*__dbh_2)
                            .await
                    },
                )
                .await;
        }
    "#]].assert_eq(&expand(
        "pool(max = MAX, acquire_ms = 500), close = \"never\", budget(instances = 1, connections = 100)",
        "async fn handler(event: E, a: &PgPool, #[db(env = \"REPLICA_URL\")] #[db(pool(max = 1), close = \"always\")] b: &PgPool, c: &PgPool) -> Result<(), Error> {}",
    ));
}

#[test]
fn what_a_proxy_asks_for_depends_on_the_close() {
    let checks = |args: &str| {
        let item = "async fn f(e: E, db: &mut PgTransaction<'_>) -> R {}";
        let output = transform(tokens(args), &tokens(item)).to_string();
        ["rds_proxy_safe", "transaction_pooling_safe"]
            .map(|check| output.contains(&format!("{check} :: < PgTransaction < '_ > > () ;")))
    };
    assert_eq!(checks(""), [false, false]);
    assert_eq!(checks("proxy = \"rds\""), [true, false]);
    assert_eq!(checks("proxy = \"rds\", close = \"always\""), [true, false]);
    assert_eq!(checks("proxy = \"rds\", close = \"never\""), [false, true]);
    assert_eq!(
        checks("proxy = \"rds\", close = \"on_error\""),
        [false, true]
    );
    assert_eq!(checks("proxy = \"pgbouncer\""), [false, true]);
    assert_eq!(
        checks("proxy = \"pgbouncer\", close = \"always\""),
        [false, true]
    );
}

#[test]
fn only_what_an_item_can_name_is_registered() {
    let registered = |item: &str| {
        transform(tokens(""), &tokens(item))
            .to_string()
            .contains("inventory")
    };
    assert!(registered("async fn f(e: E, db: &PgPool) -> R {}"));
    assert!(registered(
        "async fn f<'a>(e: E<'a>, db: &Db<Postgres>) -> R {}"
    ));
    assert!(!registered("async fn f(&self, e: E, db: &PgPool) -> R {}"));
    assert!(!registered("async fn f<T>(e: E, db: &PgPool) -> R {}"));
    assert!(!registered(
        "async fn f<const N: usize>(e: E, db: &PgPool) -> R {}"
    ));
    assert!(!registered(
        "async fn f(e: Event<impl Send>, db: &PgPool) -> R {}"
    ));
    assert!(!registered("async fn f(e: E, db: &Db<T>) -> R {}"));
    assert!(!registered("async fn f(e: E, db: &Db<Self>) -> R {}"));
}

#[test]
fn anonymous_types_are_named_or_inferred() {
    expect![[r#"
        async fn handler<__DbhImpl0: Display, __DbhImpl1: Iterator<Item = __DbhImpl0>>(
            event: Event<__DbhImpl1>,
        ) -> Result<impl Display, Error> {
            static __DB_HANDLER_SITE: ::db_handler::__private::Site = ::db_handler::__private::Site::new(
                ::core::module_path!(),
                "handler",
                &[::db_handler::__private::Config::new()],
            );
            return ::db_handler::__private::handle::<
                (::db_handler::__private::Ref<PgPool>,),
                _,
                _,
                _,
                _,
            >(
                    &__DB_HANDLER_SITE,
                    ::db_handler::__private::signature::<Event<__DbhImpl1>, Result<_, Error>>(),
                    event,
                    move |__dbh_event, (__dbh_0,)| async move {
                        let __dbh_once = ::core::option::Option::None::<&mut ()>;
                        ::core::convert::identity(async move |
                                #[allow(clippy::shadow_unrelated)]
                                event: Event<__DbhImpl1>,
                                db: &PgPool,
                            | -> Result<_, Error> {
                                #[allow(unreachable_code, clippy::all)]
                                if false {
                                    ::core::mem::drop(__dbh_once);
                                    let __dbh_output: Result<_, Error> = loop {};
                                    return __dbh_output;
                                }
                            })(__dbh_event, &*__dbh_0)
                            .await
                    },
                )
                .await;
        }
    "#]].assert_eq(&expand(
        "",
        "async fn handler(event: Event<impl Iterator<Item = impl Display>>, db: &PgPool) -> Result<impl Display, Error> {}",
    ));
}
