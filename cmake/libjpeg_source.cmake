# Finds the source archive of a pinned libjpeg-turbo. Also a script, which downloads it into third_party/:
#   cmake -P cmake/libjpeg_source.cmake
cmake_minimum_required(VERSION 3.22)  # a script has no policies of its own
# The newest first, then the one that Debian keeps, for machines that reach nothing but its mirror. Of each the archive
# of the release and the one of its tag, whose sources are the same.
set(libjpeg_versions 3.2.0 3.1.3)
set(libjpeg_sums_3.2.0
  6f30092cef9fb839779646608f4ee14ae3cbac989c47fa05e841b0841f09878e
  980dd81f425082aa6d7c9e47fef27554ce7a9ffc8e2f6e863b97d263c5c50858)
set(libjpeg_sums_3.1.3
  075920b826834ac4ddf97661cc73491047855859affd671d52079c6867c1c6c0
  3a13a5ba767dc8264bc40b185e41368a80d5d5f945944d1dbaa4b2fb0099f4e5)
list(GET libjpeg_versions 0 libjpeg_newest)
set(libjpeg_releases https://github.com/libjpeg-turbo/libjpeg-turbo/releases/download)
set(libjpeg_url ${libjpeg_releases}/${libjpeg_newest}/libjpeg-turbo-${libjpeg_newest}.tar.gz)
get_filename_component(libjpeg_folder ${CMAKE_CURRENT_LIST_DIR}/../third_party ABSOLUTE)

# Sets the version of an archive, or "" where it is none of the pinned ones.
function(libjpeg_version_of path result)
  set(${result} "" PARENT_SCOPE)
  if(EXISTS ${path} AND NOT IS_DIRECTORY ${path})
    file(SHA256 ${path} sum)
    foreach(version IN LISTS libjpeg_versions)
      if(sum IN_LIST libjpeg_sums_${version})
        set(${result} ${version} PARENT_SCOPE)
      endif()
    endforeach()
  endif()
endfunction()

# The machine's own Debian or Ubuntu mirror, by apt's own means: it may have what no route leads to otherwise.
function(libjpeg_from_mirror path)
  set(helper /usr/lib/apt/apt-helper)
  if(NOT EXISTS ${helper})
    return()
  endif()
  execute_process(COMMAND apt-get indextargets --format "$(REPO_URI)" "Created-By: Packages"
    OUTPUT_VARIABLE mirrors ERROR_QUIET)
  string(REGEX MATCHALL "[^\n]+/(debian|ubuntu)/" mirrors "${mirrors}")
  list(REMOVE_DUPLICATES mirrors)
  foreach(version IN LISTS libjpeg_versions)
    list(GET libjpeg_sums_${version} 1 sum)
    foreach(mirror IN LISTS mirrors)
      set(file ${mirror}pool/main/libj/libjpeg-turbo/libjpeg-turbo_${version}.orig.tar.gz)
      execute_process(COMMAND ${helper} download-file ${file} ${path} SHA256:${sum}
        TIMEOUT 60 RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
      if(NOT failed)
        return()
      endif()
    endforeach()
  endforeach()
endfunction()

# Downloads an archive into third_party/, from the release or else a mirror.
function(libjpeg_download)
  set(part ${libjpeg_folder}/libjpeg-turbo.part)
  file(DOWNLOAD ${libjpeg_url} ${part} STATUS status TIMEOUT 60 INACTIVITY_TIMEOUT 10)
  libjpeg_version_of(${part} version)
  if(NOT version)
    libjpeg_from_mirror(${part})
    libjpeg_version_of(${part} version)
  endif()
  if(version)
    file(RENAME ${part} ${libjpeg_folder}/libjpeg-turbo-${version}.tar.gz)
  endif()
  file(REMOVE ${part})
endfunction()

# Sets FKDX_LIBJPEG_ARCHIVE to the newest archive of third_party/ and FKDX_LIBJPEG_VERSION, or both to "".
function(libjpeg_kept)
  set(FKDX_LIBJPEG_ARCHIVE "" PARENT_SCOPE)
  set(FKDX_LIBJPEG_VERSION "" PARENT_SCOPE)
  foreach(version IN LISTS libjpeg_versions)
    set(kept ${libjpeg_folder}/libjpeg-turbo-${version}.tar.gz)
    libjpeg_version_of(${kept} known)
    if(known)
      set(FKDX_LIBJPEG_ARCHIVE ${kept} PARENT_SCOPE)
      set(FKDX_LIBJPEG_VERSION ${known} PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# Sets FKDX_LIBJPEG_ARCHIVE and FKDX_LIBJPEG_VERSION, both "" where no archive can be had.
function(libjpeg_find_source)
  if(DEFINED ENV{FKDX_LIBJPEG_SOURCE})
    set(given $ENV{FKDX_LIBJPEG_SOURCE})
    libjpeg_version_of(${given} FKDX_LIBJPEG_VERSION)
    if(NOT FKDX_LIBJPEG_VERSION)
      message(FATAL_ERROR "FKDX_LIBJPEG_SOURCE: got ${given}, expected libjpeg-turbo-${libjpeg_newest}.tar.gz with one of "
        "the SHA-256 sums of cmake/libjpeg_source.cmake; download ${libjpeg_url}, or unset the variable")
    endif()
    set(FKDX_LIBJPEG_ARCHIVE ${given})
  else()
    libjpeg_kept()
    if(NOT FKDX_LIBJPEG_ARCHIVE)
      libjpeg_download()
      libjpeg_kept()
    endif()
  endif()
  set(FKDX_LIBJPEG_ARCHIVE ${FKDX_LIBJPEG_ARCHIVE} PARENT_SCOPE)
  set(FKDX_LIBJPEG_VERSION ${FKDX_LIBJPEG_VERSION} PARENT_SCOPE)
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  libjpeg_find_source()
  if(NOT FKDX_LIBJPEG_ARCHIVE)
    message(FATAL_ERROR "libjpeg-turbo could not be downloaded; put its archive into third_party/, from ${libjpeg_url}")
  endif()
  message(STATUS "libjpeg-turbo: ${FKDX_LIBJPEG_ARCHIVE}")
endif()
