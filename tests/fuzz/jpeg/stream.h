// SPDX-License-Identifier: Apache-2.0
// Legal and half-legal JPEG streams: every table number, sampling factor, restart interval, scan script and
// order of markers, with each field of each header changed now and then.
#pragma once

#include "codes.h"

Bytes random_stream(Random& random);
