# SPDX-License-Identifier: GPL-2.0-or-later
# Readers of what other trackers left, for gracectl.
graced_adapter(graced_import SOURCES import/files.cc import/tracker_database.cc LIBS PkgConfig::sqlite)
