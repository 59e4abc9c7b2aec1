// SPDX-License-Identifier: Apache-2.0
// What a plain decode of all pixels by libjpeg-turbo says of a stream, with an object of its own.
#pragma once

#include <string>

#include "codes.h"

struct Judgement {
  bool header = false;  // it could be read, and we promise to decode such images
  int height = 0, width = 0;
  Bytes pixels;           // RGB, as far as they came
  int sound_rows = 0;     // that came before the first damage
  int rows = 0;           // that came before libjpeg gave up
  bool sound = false;     // no damage in the whole file
  bool complete = false;  // libjpeg did not give up
  int harmless = 0;       // warnings
  std::string reason;     // of the first damage
};

// Images of more pixels than this are judged by their header alone.
constexpr int kJudgedPixels = 1 << 18;

Judgement judge(const Bytes& bytes);
