# SPDX-License-Identifier: GPL-2.0-or-later
# The recovery database.
graced_adapter(graced_history SOURCES adapters/client_history.cc LIBS PkgConfig::sqlite)
graced_adapter(graced_grace_history SOURCES adapters/grace_history.cc LIBS PkgConfig::sqlite Threads::Threads)
graced_adapter(graced_store SOURCES adapters/sqlite_store.cc LIBS graced_history PkgConfig::sqlite Threads::Threads)
