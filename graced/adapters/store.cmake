# SPDX-License-Identifier: GPL-2.0-or-later
# The recovery database.
graced_adapter(graced_store SOURCES adapters/sqlite_store.cc LIBS PkgConfig::sqlite Threads::Threads)
